"""Lower layers that are trained first and then left as they are, so that most steps end their backward pass above them.

What a lower layer has to learn it learns early (FreezeOut, arXiv 1706.04983; AutoFreeze, arXiv 2102.01386). From the
step on at which they are frozen, the backward pass ends at the lowest layer that is still trained.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.optim import Optimizer

from vfl.errors import InputError
from vfl.io.layers import layer_list
from vfl.train.layers.learning_rates import LOWER, layer_of


class FreezeConfig(BaseModel):
    """The layers below a part of the depth are trained in a first part of the steps alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    below: float = Field(default=0.5, gt=0, lt=1, description="of the decoder's depth: the layers under it are frozen")
    after: float = Field(default=0.33, gt=0, lt=1, description="of the steps: from then on")


@dataclass(frozen=True)
class Freezing:
    """What `freeze` means for one run.

    Attributes:
        layer: the lowest layer that is trained to the end.
        step: the first step, from 0, in which the layers below are frozen.
    """

    layer: int
    step: int

    @classmethod
    def of(cls, config: FreezeConfig, num_layers: int, steps: int) -> Self:
        """For a model and a number of optimizer steps."""
        return cls(round(config.below * num_layers), round(config.after * steps))

    def holds(self, name: str) -> bool:
        """Whether a weight of this name belongs to a layer that is frozen in time."""
        layer = layer_of(name)
        return layer is not None and layer < self.layer

    @contextmanager
    def at(self, step: int, model: nn.Module, optimizer: Optimizer | None = None) -> Iterator[None]:
        """Forward and backward pass of a step; the weights are trainable again afterwards, as they are saved so.

        Args:
            step: optimizer steps before this one.
            model: with its adapter.
            optimizer: which steps within (DeepSpeed's does): it takes weights without a gradient for such with a zero
                one, so a learning rate of zero is needed too. The scheduler sets it anew for each step.
        """
        if step < self.step:
            yield
            return
        frozen = [p for name, p in model.named_parameters() if p.requires_grad and self.holds(name)]
        for group in () if optimizer is None else optimizer.param_groups:
            if group[LOWER]:
                group["lr"] = 0.0
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)

    def sentence(self, layers: Sequence[int]) -> str:
        """For preflight and card: what of `layers` is frozen when."""
        lower = layer_list([layer for layer in layers if layer < self.layer])
        return (
            f"layers {lower} after step {self.step}: from then on the backward pass ends at layer "
            f"{min(layer for layer in layers if layer >= self.layer)}"
        )


def check_freezing(config: FreezeConfig, layers: Sequence[int], num_layers: int) -> None:
    """Raises InputError where `freeze` would leave nothing to train, or has nothing to freeze."""
    layer = round(config.below * num_layers)
    below = [each for each in layers if each < layer]
    if below and len(below) < len(layers):
        return
    what = "all of them" if below else "none of them"
    raise InputError(
        f"freeze.below {config.below:g} means the layers below {layer} of {num_layers}, and that is {what} "
        f"({layer_list(layers)} are trained). Give another freeze.below, or leave freeze out."
    )
