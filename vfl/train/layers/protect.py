"""Layers that are spared, because functions that are not to be lost read the image there."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from vfl.errors import InputError
from vfl.functionmap import FunctionMap, ModelId
from vfl.io.fields import Names
from vfl.io.layers import layer_list


class ProtectConfig(BaseModel):
    """Layers where functions that are not to be lost read the image: not trained, or trained slower."""

    model_config = ConfigDict(extra="forbid")

    functions: Annotated[Names, Field(min_length=1)]
    map: Path
    how: Literal["freeze", "scale"] = "freeze"
    scale: float = Field(default=0.1, gt=0, lt=1, description="of the learning rate, for how: scale")
    allow_other_model: bool = False


@dataclass(frozen=True)
class Protection:
    """What `protect` means for one model.

    Attributes:
        layers: of the protected functions, ascending.
        barred: those of them that are not trained.
        multipliers: of the learning rate, for those that are trained slower.
        sentence: for preflight and card.
    """

    layers: tuple[int, ...]
    barred: tuple[int, ...] = ()
    multipliers: dict[int, float] = field(default_factory=dict)
    sentence: str = ""


def protection_of(config: ProtectConfig | None, model: ModelId, trained: Sequence[str] = ()) -> Protection | None:
    """What a recipe's `protect` spares, or None; `trained` are the functions whose layers are to be trained.

    Raises:
        InputError: for a map of another model, and for functions that are to be trained and protected at once.
    """
    if config is None:
        return None
    if both := [name for name in config.functions if name in trained]:
        raise InputError(
            f"{', '.join(both)} stands under layers.functions and under protect.functions. Protect the other functions."
        )
    layers = _layers(config, model)
    reads = f"layers {layer_list(layers)}, where {' and '.join(config.functions)} read the image"
    if config.how == "freeze":
        return Protection(layers, barred=layers, sentence=f"{reads}: not trained")
    return Protection(
        layers,
        multipliers=dict.fromkeys(layers, config.scale),
        sentence=f"{reads}: trained at {config.scale:g} of the learning rate",
    )


def spared(layers: list[int], protection: Protection | None) -> list[int]:
    """The layers that are left to train.

    Raises:
        InputError: when none is.
    """
    if protection is None:
        return layers
    left = [layer for layer in layers if layer not in protection.barred]
    if not left:
        raise InputError(
            f"protect spares layers {layer_list(protection.barred)}, and these are all that `layers` would train "
            f"({layer_list(layers)}). Protect fewer functions, set protect.how: scale, or train more layers."
        )
    return left


def _layers(config: ProtectConfig, model: ModelId) -> tuple[int, ...]:
    fitting = FunctionMap.load(config.map).check_model(
        id=model.id,
        num_layers=model.num_layers,
        revision=model.revision,
        weights_sha256=model.weights_sha256,
        family=model.family,
        allow_other_model=config.allow_other_model,
    )
    return tuple(fitting.layers_of(config.functions))
