"""Learning rates that differ by decoder layer: protected layers are trained slower than the others."""

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

LOWER = "lower"
"""In a group of weights: of layers that are frozen on the way. A key, since DeepSpeed's groups hold other tensors."""
_LAYER = re.compile(r"\.layers\.(\d+)\.")


def layer_of(name: str) -> int | None:
    """The decoder layer that a weight of this name belongs to."""
    match = _LAYER.search(name)
    return None if match is None else int(match[1])


def parameter_groups(
    model: nn.Module, multipliers: Mapping[int, float], learning_rate: float, weight_decay: float, below: int = 0
) -> list[dict[str, Any]]:
    """The trained weights as groups of an optimizer, one for each multiplier.

    Args:
        model: only its language layers may be trained where there are multipliers.
        multipliers: of the learning rate, by decoder layer; 1 for layers that are not named.
        learning_rate, weight_decay: of a layer whose multiplier is 1; decay is a rate too, so it shrinks as well.
        below: layers below this one are in groups of their own, after the others.
    """
    members: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            layer = layer_of(name)
            factor = 1.0 if layer is None else multipliers.get(layer, 1.0)
            lower = layer is not None and layer < below
            members.setdefault((not lower, factor), []).append(parameter)
    return [
        {"params": parameters, "lr": learning_rate * factor, "weight_decay": weight_decay, LOWER: not upper}
        for (upper, factor), parameters in sorted(members.items(), reverse=True, key=lambda member: member[0])
    ]
