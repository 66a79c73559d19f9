"""The Linear modules of a vision-language model, tower by tower, under their full names."""

import logging
import re
from collections.abc import Sequence
from typing import Literal, get_args

from torch import nn
from transformers import PreTrainedModel

from vfl.errors import InputError
from vfl.models.discover import Parts, discover
from vfl.models.towers import under, vision_and_projector

logger = logging.getLogger(__name__)

Tower = Literal["language", "vision", "projector", "other"]
Also = Literal["vision", "projector"]
ATTENTION_AND_MLP = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ALL_LINEAR = "all-linear"


def target_names(
    model: PreTrainedModel,
    layers: Sequence[int],
    short_names: Sequence[str] | str = ATTENTION_AND_MLP,
    also: Sequence[str] = (),
    *,
    parts: Parts | None = None,
) -> list[str]:
    """Full names of the Linear modules to adapt.

    Args:
        model: on any device, "meta" included.
        layers: decoder layers, from 0.
        short_names: names inside a layer ("q_proj" or "self_attn.q_proj"), or "all-linear" for every Linear there.
        also: "vision" and "projector" add the Linear modules of these.
        parts: the model's, where they are known already.

    Raises:
        InputError: for a name that no Linear module of these layers has, and for modules that may not be adapted.
    """
    parts = parts or discover(model)
    names = [
        f"{parts.decoder_name}.layers.{layer}.{name}"
        for layer in layers
        for name in _inside(parts.layers[layer], short_names)
    ]
    if isinstance(short_names, str):
        if not names:
            raise InputError(f"The layers of {type(model).__name__} hold no Linear module.")
    else:
        _check_found(model, parts.layers, layers, short_names)
    if unknown := [name for name in also if name not in get_args(Also)]:
        raise InputError(f"also_adapt names {', '.join(unknown)}; expected {' or '.join(get_args(Also))}.")
    for tower in dict.fromkeys(also):
        names += _linear_of(model, parts, tower)
    return names


def tower_of(model: PreTrainedModel, names: Sequence[str], *, parts: Parts | None = None) -> dict[str, Tower]:
    """The tower of each module name: "language" is the decoder's layers, "other" what is in none of the three."""
    parts = parts or discover(model)
    prefix = f"{parts.decoder_name}.layers."
    vision, projector = vision_and_projector(model, parts)

    def tower(name: str) -> Tower:
        if name.startswith(prefix):
            return "language"
        if under(name, projector):
            return "projector"
        return "vision" if under(name, vision) else "other"

    return {name: tower(name) for name in names}


def layer_of(parts: Parts, name: str) -> int | None:
    """The decoder layer that a module belongs to, or None."""
    layer = re.match(rf"{re.escape(parts.decoder_name)}\.layers\.(\d+)\.", name)
    return int(layer[1]) if layer else None


def linear_names(module: nn.Module) -> list[str]:
    """Names of the Linear modules inside, in order; quantized ones are Linear too."""
    return [name for name, inner in module.named_modules() if isinstance(inner, nn.Linear)]


def named_so(name: str, short: str) -> bool:
    """Whether a name inside a layer is meant by a short one: all of it, or its end from a dot on."""
    return name == short or name.endswith(f".{short}")


def _inside(layer: nn.Module, short_names: Sequence[str] | str) -> list[str]:
    all_names = linear_names(layer)
    if short_names == ALL_LINEAR:
        return all_names
    if isinstance(short_names, str):
        raise InputError(
            f"target_modules is {short_names!r}; expected a list of names inside a layer, such as [q_proj, v_proj], "
            f"or {ALL_LINEAR!r}. Patterns over the whole model would reach other towers."
        )
    if not short_names:
        raise InputError("target_modules is empty; name at least one module inside a layer, such as [q_proj, v_proj].")
    return [name for name in all_names if any(named_so(name, short) for short in short_names)]


def _check_found(
    model: PreTrainedModel, all_layers: nn.ModuleList, layers: Sequence[int], short_names: Sequence[str]
) -> None:
    """Each short name stands in one of the layers."""
    kind = type(model).__name__
    present = {layer: linear_names(all_layers[layer]) for layer in layers}
    for short in short_names:
        if short == "lm_head" or short.endswith(".lm_head"):
            raise InputError(
                "target_modules names lm_head. Adapters of the output head are refused: it belongs to no layer, and "
                "serving engines do not load them. Leave it out."
            )
        lacking = [layer for layer, names in present.items() if not any(named_so(name, short) for name in names)]
        if len(lacking) == len(layers):
            first = all_layers[layers[0]]
            known = ", ".join(linear_names(first))
            raise InputError(
                f"No layer of {layers[0]} to {layers[-1]} of {kind} has a Linear module {short!r}; layer {layers[0]} "
                f"has {known}. Name these in target_modules, or use {ALL_LINEAR}.{_experts(first)}"
            )
        if lacking:
            logger.warning("%s: only some of the layers have %r; layers %s have not", kind, short, lacking)


def _experts(layer: nn.Module) -> str:
    """What to do about weights that are parameters and not modules, as in a mixture of experts."""
    stacked = [name for name, parameter in layer.named_parameters() if parameter.dim() == 3]
    if not stacked:
        return ""
    attention = [name for name in linear_names(layer) if "attn" in name]
    return (
        f" Its experts are parameters and no modules: leave them alone with target_modules: [{', '.join(attention)}], "
        f"or adapt them too (rank x experts parameters) with target_parameters: [{', '.join(stacked)}] and "
        "lora_dropout: 0 besides."
    )


def _linear_of(model: PreTrainedModel, parts: Parts, tower: str) -> list[str]:
    vision, projector = vision_and_projector(model, parts)
    kind = type(model).__name__
    inside = [
        name
        for name in linear_names(model)
        if (under(name, projector) if tower == "projector" else under(name, vision) and not under(name, projector))
    ]
    if not inside:
        bare = [name for name, _ in model.named_parameters() if under(name, projector)]
        holds = f" (it holds {', '.join(bare)}, as parameters)" if tower == "projector" and bare else ""
        raise InputError(
            f"also_adapt asks for the {tower} of {kind}, but no Linear module of it was found{holds}. Leave it out."
        )
    return inside
