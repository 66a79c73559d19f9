"""A model without its weights: its modules have their names and shapes, on the meta device."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel
from transformers.integrations import deepspeed

from vfl.errors import InputError
from vfl.functionmap import ModelId
from vfl.loading.beds import bed_of
from vfl.loading.load import resolve
from vfl.models.discover import discover
from vfl.models.families import family_of
from vfl.models.identity import weights_sha256


def meta_model(
    model: str | Path | None = None, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedModel:
    """The model that a folder or hub id names, on the meta device: only its config is read.

    Raises:
        InputError: when there is no such model, or it is not one that can be used here.
    """
    name, local = resolve(model)
    common: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code, "local_files_only": local}
    try:
        config = AutoConfig.from_pretrained(name, **common)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"No model configuration could be loaded from {name!r}: {reason}") from error
    empty = meta_model_of(config, trust_remote_code=trust_remote_code)
    empty.name_or_path = name
    return empty


def meta_model_of(config: Any, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """The model of a config, on the meta device; `config` stays as it is.

    Raises:
        InputError: when Transformers has no image-text-to-text model for it.
    """
    family_of(config.model_type)
    known = type(config) in AutoModelForImageTextToText._model_mapping
    if not known and not trust_remote_code:
        raise InputError(
            f"A {config.model_type!r} model is not one that Transformers lists as image-text-to-text: it is text-only "
            "or needs its own code. Give a vision-language model, or trust_remote_code (--trust-remote-code)."
        )
    with _whole(), torch.device("meta"):
        if not known:
            return AutoModelForImageTextToText.from_config(config, trust_remote_code=True)
        kind = AutoModelForImageTextToText._model_mapping[type(config)]
        return kind(deepcopy(config))


def empty_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A plain model of the same class and config, on the meta device."""
    with _whole(), torch.device("meta"):
        return type(model)(deepcopy(model.config))


@contextmanager
def _whole() -> Iterator[None]:
    """Under ZeRO-3 Transformers would spread the new model over the processes, and wait for all of them to build it."""
    reference = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = reference


def identify_model(model: PreTrainedModel, *, hashed: bool = True) -> ModelId:
    """What a map or preset is compared with, for a model that was named by a folder or hub id.

    Args:
        model: loaded, or a meta model; its `name_or_path` is what it was loaded from.
        hashed: hash a local folder's weight files (all of them are read).
    """
    folder = Path(model.name_or_path)
    return ModelId(
        id=bed_of(folder) or model.name_or_path,
        revision=getattr(model.config, "_commit_hash", None),
        weights_sha256=weights_sha256(folder) if hashed and folder.is_dir() else None,
        family=family_of(model.config.model_type).name,
        num_layers=len(discover(model).layers),
    )
