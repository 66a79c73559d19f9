"""Settings that say which model: shared by everything that loads one, and how a result says which it was."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from vfl.errors import InputError
from vfl.functionmap import PIXELS, FunctionMap, ModelId
from vfl.io.config import validated
from vfl.io.fields import MaxPixels, MinPixels, Quantize
from vfl.loading.beds import EMBEDDED_ID, bed_of
from vfl.loading.load import load
from vfl.models.identity import weights_sha256
from vfl.models.pixel_limits import limits_of
from vfl.models.vlm import VLM


class ModelConfig(BaseModel):
    """Which model, and how it is loaded (the arguments of `vfl.load`)."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str = Field(default=EMBEDDED_ID, description="folder, hub id, or embedded: the test model")
    revision: str | None = None
    dtype: Literal["auto", "float32", "float16", "bfloat16", "float64"] = "auto"
    device: str | None = None
    device_map: str | None = None
    quantize: Quantize = None
    attn_implementation: Literal["sdpa", "eager"] = "sdpa"
    chat_template: Path | None = Field(default=None, description="file with a chat template that replaces the model's")
    min_pixels: MinPixels = None
    max_pixels: MaxPixels = None
    boxes: str | None = Field(
        default=None, description="how the model writes boxes, by a convention's name; default: as its family does"
    )
    trust_remote_code: bool = False


C = TypeVar("C", bound=ModelConfig)


def configured(kind: type[C], model: str | Path | VLM, settings: Mapping[str, Any]) -> tuple[C, VLM | None]:
    """The settings of a Python call that takes a model or its name, and the model where it is loaded already.

    Raises:
        InputError: for an unknown setting or a value of the wrong kind.
    """
    loaded = model if isinstance(model, VLM) else None
    name = loaded.model_id if loaded else str(model)
    config = validated(kind, {"model": name, **settings}, source="settings")
    if loaded:
        _check_as_loaded(config, loaded)
    return config, loaded


def _check_as_loaded(config: ModelConfig, vlm: VLM) -> None:
    """Limits of pictures, and how boxes are read, are set when a model is loaded."""
    limits = limits_of(vlm.processor)
    there = {**(limits._asdict() if limits else {}), "boxes": vlm.family.boxes.name}
    for name in (*PIXELS, "boxes"):
        asked, own = getattr(config, name), there.get(name)
        if asked is not None and asked != own:
            raise InputError(
                f"{name} is {asked}, and the model was loaded with {own}. Give it to vfl.load(..., {name}={asked!r}), "
                "or the model's name here."
            )


def with_limits_of(config: C, vlm: VLM) -> C:
    """The settings with the size of pictures in force, which a run that is resumed later has to share."""
    limits = limits_of(vlm.processor)
    return config.model_copy(update=limits._asdict()) if limits else config


def load_from(config: ModelConfig) -> VLM:
    """The model that a configuration names."""
    template = None
    if config.chat_template is not None:
        if not config.chat_template.is_file():
            raise InputError(f"No chat template at {config.chat_template}. Give a file with a Jinja template.")
        template = config.chat_template.read_text(encoding="utf-8")
    return load(
        config.model,
        dtype=config.dtype,
        device=config.device,
        device_map=config.device_map,
        quantize=config.quantize,
        attn_implementation=config.attn_implementation,
        revision=config.revision,
        chat_template=template,
        min_pixels=config.min_pixels,
        max_pixels=config.max_pixels,
        boxes=config.boxes,
        trust_remote_code=config.trust_remote_code,
    )


def identify(vlm: VLM) -> ModelId:
    """What a map says of its model."""
    folder = Path(vlm.model_id)
    limits = limits_of(vlm.processor)
    return ModelId(
        id=bed_of(vlm.model_id) or vlm.model_id,
        revision=vlm.revision,
        weights_sha256=weights_sha256(folder) if folder.is_dir() else None,
        family=vlm.family.name,
        num_layers=vlm.num_layers,
        **(limits._asdict() if limits else {}),
    )


def map_of(vlm: VLM, path: Path, *, allow_other_model: bool = False) -> FunctionMap:
    """The map of this model.

    Raises:
        InputError: for a map of another model.
    """
    model = identify(vlm)
    return FunctionMap.load(path).check_model(**dict(model), allow_other_model=allow_other_model)
