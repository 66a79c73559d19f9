"""Which modules of a layer are adapted: all, those of attention, those of the MLP, or a list of names."""

from collections.abc import Mapping, Sequence
from typing import Any

from vfl.errors import InputError
from vfl.models.vlm import VLM
from vfl.train.adapter.towers import linear_names


def with_modules(lora: Mapping[str, Any], modules: str | Sequence[str], vlm: VLM) -> dict[str, Any]:
    """LoRA options with `layers.modules` as their target modules; as they are for "all".

    Raises:
        InputError: where the LoRA options name modules too, or no module is of that kind.
    """
    if modules == "all":
        return dict(lora)
    if lora.get("target_modules") is not None:
        raise InputError("layers.modules and lora.target_modules both name modules. Keep one of them.")
    if not isinstance(modules, str):
        return {**lora, "target_modules": list(modules)}
    names = dict.fromkeys(name for layer in vlm.layers for name in linear_names(layer))
    chosen = [name for name in names if attends(name) == (modules == "attention")]
    if not chosen:
        raise InputError(f"layers.modules: {modules}, but the layers' Linear modules are {', '.join(names)}.")
    return {**lora, "target_modules": chosen}


def attends(name: str) -> bool:
    """Whether a module's name inside its layer says that it belongs to attention."""
    return any("attn" in part or "attention" in part for part in name.split("."))
