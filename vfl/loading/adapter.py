"""A saved LoRA adapter put on its model, strictly: every tensor must find its place."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel
from peft.tuners.lora.layer import LoraLayer
from transformers import PreTrainedModel

from vfl.errors import InputError
from vfl.models.pixel_limits import limits_of, set_limits, take_over
from vfl.models.vlm import VLM

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


@contextmanager
def adapter_on(
    vlm: VLM, folder: Path, *, min_pixels: int | None = None, max_pixels: int | None = None
) -> Iterator[None]:
    """A model with an adapter on it, and pictures of the size that it was trained with; both as before afterwards.

    Args:
        vlm: the model.
        folder: of the adapter.
        min_pixels, max_pixels: what a user said of the pictures' size.

    Raises:
        InputError: for a folder without a LoRA adapter for this model.
    """
    limits, notes = limits_of(vlm.processor), list(vlm.notes)
    loaded = load_adapter(vlm.model, folder)
    try:
        asked = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        if other := take_over(vlm.processor, vlm.family.name, folder, **asked):
            vlm.notes.append(other)
        yield
    finally:
        loaded.unload()
        vlm.notes[:] = notes
        if limits is not None:
            set_limits(vlm.processor, vlm.family.name, **limits._asdict())


def load_adapter(base_model: PreTrainedModel, folder: Path, *, trainable: bool = False) -> PeftModel:
    """The model with a saved adapter on it; unlike PEFT alone, every tensor must find its place.

    Args:
        base_model: plain; the adapter is injected into it.
        folder: as training or PEFT wrote it.
        trainable: to go on training it, rather than for inference.

    Raises:
        InputError: when the folder holds no LoRA adapter, or it is not one for this model.
    """
    if any(isinstance(module, LoraLayer) for module in base_model.modules()):
        raise InputError("The base model has an adapter on it already. Give a freshly loaded one.")
    return placed(base_model, folder, read_adapter_config(folder), trainable=trainable)


def read_adapter_config(folder: Path) -> Any:
    """The adapter's `LoraConfig`.

    Raises:
        InputError: when there is none, or it is of another method.
    """
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder} holds no adapter: expected {CONFIG} and {WEIGHTS}, as PEFT saves them.")
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder / CONFIG} cannot be read: {' '.join(str(error).split())}") from error
    if str(getattr(config.peft_type, "value", config.peft_type)) != "LORA":
        raise InputError(f"{folder} holds an adapter of type {config.peft_type}; expected LORA.")
    return config


def placed(base_model: PreTrainedModel, folder: Path, config: Any, *, trainable: bool = False) -> PeftModel:
    """A model with an adapter on it, as its configuration says.

    These are the two steps of `PeftModel.from_pretrained`, which only warns of tensors that the second one misses.

    Raises:
        InputError: when the adapter is not one for this model.
    """
    kind = type(base_model).__name__
    config.inference_mode = not trainable
    empty = base_model.device.type == "meta"
    try:
        loaded = PeftModel(base_model, config, low_cpu_mem_usage=empty)
        result = loaded.load_adapter(
            str(folder),
            "default",
            is_trainable=trainable,
            low_cpu_mem_usage=empty,
            key_mapping=getattr(base_model, "_checkpoint_conversion_mapping", None),
            torch_device="cpu",
        )
    except (ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"The adapter in {folder} does not fit {kind}: {' '.join(str(error).split())}") from error
    for problem, keys in (("lacks", result.missing_keys), ("has no place in the model for", result.unexpected_keys)):
        if keys:
            raise InputError(
                f"The adapter in {folder} {problem} {keys[0]} and {len(keys) - 1} others. Its names are not those of "
                f"{kind}: check the base model, and the Transformers version that the adapter was trained with."
            )
    return loaded
