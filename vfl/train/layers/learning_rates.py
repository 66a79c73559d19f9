"""Learning rates that differ by weight: protected layers are trained slower, towers at rates of their own."""

import re
from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from vfl.models.discover import Parts
from vfl.train.adapter import towers

LOWER = "lower"
"""In a group of weights: of layers that are frozen on the way. A key, since DeepSpeed's groups hold other tensors."""
_LAYER = re.compile(r"\.layers\.(\d+)\.")
_WRAPPED = "base_model.model."  # before a name of the base model, in a PEFT model


def layer_of(name: str) -> int | None:
    """The layer that a weight of this name belongs to, where only decoder layers are trained."""
    match = _LAYER.search(name)
    return None if match is None else int(match[1])


def own_rates(
    model: nn.Module,
    base: PreTrainedModel,
    parts: Parts,
    learning_rate: float,
    multipliers: Mapping[int, float],
    tower_rates: Mapping[towers.Also, float],
) -> dict[str, float]:
    """The learning rate of each trained weight that has one of its own, by name.

    Args:
        model: the PEFT model.
        base: the model inside, with its `parts`.
        multipliers: of `learning_rate`, by decoder layer. Layers of other towers have numbers too: they are not meant.
        tower_rates: of "vision" and "projector".
    """
    bare = {name: name.removeprefix(_WRAPPED) for name, weight in model.named_parameters() if weight.requires_grad}
    tower = towers.tower_of(base, list(bare.values()), parts=parts)
    rates = {}
    for name, inner in bare.items():
        layer = towers.layer_of(parts, inner)
        if layer is not None and layer in multipliers:
            rates[name] = learning_rate * multipliers[layer]
        elif (own := tower_rates.get(tower[inner])) is not None:  # type: ignore[arg-type]
            rates[name] = own
    return rates


def parameter_groups(
    model: nn.Module, rates: Mapping[str, float], learning_rate: float, weight_decay: float, below: int = 0
) -> list[dict[str, Any]]:
    """The trained weights as groups of an optimizer, one for each learning rate.

    Args:
        model: only its decoder layers may be trained where some are `below`.
        rates: of weights with one of their own, by name.
        learning_rate, weight_decay: of the others; decay counts a step's rate, so it is smaller where that is.
        below: layers below this one are in groups of their own, after the others.
    """
    members: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            layer = layer_of(name)
            lower = layer is not None and layer < below
            rate = rates.get(name.removeprefix("module."), learning_rate)
            members.setdefault((not lower, rate), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": weight_decay, LOWER: not upper}
        for (upper, rate), parameters in sorted(members.items(), reverse=True, key=lambda member: member[0])
    ]
