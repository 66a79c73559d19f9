"""How functions that are not to be lost are protected: by layers that are spared, or by rows that hold the model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vfl.errors import InputError
from vfl.functionmap import FunctionMap, ModelId
from vfl.io.fields import Names
from vfl.io.layers import layer_list
from vfl.train.old_rows import OldRowsConfig


class ProtectConfig(BaseModel):
    """Functions that are not to be lost: the layers where they read the image are not trained, or trained slower, or
    the answers to anchor rows are held to those of the base model."""

    model_config = ConfigDict(extra="forbid")

    functions: Annotated[Names, Field(description="may be left out where anchors have data of their own")] = ()
    map: Path | None = Field(default=None, description="of this model; how: kl can do without")
    how: Literal["freeze", "scale", "kl"] = "freeze"
    scale: float = Field(default=0.1, gt=0, lt=1, description="of the learning rate, for how: scale")
    beta: float = Field(
        default=3.0, ge=0, description="for how: kl: what a nat of divergence weighs; 0 measures and holds nothing"
    )
    anchors: OldRowsConfig | None = Field(
        default=None, description="rows for how: kl; probes are minimal pairs of the functions"
    )
    allow_other_model: bool = False

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if self.how != "kl" and self.anchors is not None:
            raise ValueError(f"protect.anchors are for how: kl, and how is {self.how}: leave one of them out")
        if self.how != "kl" and self.map is None:
            raise ValueError(f"protect.how: {self.how} needs a map, which says where the functions read the image")
        if self.how == "kl" and self.anchors is None:
            raise ValueError("protect.how: kl needs anchors: rows from data, or from probes (anchors: {probes: micro})")
        own_rows = self.anchors is not None and bool(self.anchors.data)
        if not self.functions and (self.map is not None or not own_rows):
            raise ValueError("protect.functions is empty: name at least one")
        return self


@dataclass(frozen=True)
class Protection:
    """What `protect` means for one model.

    Attributes:
        layers: of the protected functions, ascending; none where no map says so.
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
    # Held by rows, a function may be trained as well: what it learns anew is to cost nothing of what it could.
    if config.how != "kl" and (both := [name for name in config.functions if name in trained]):
        raise InputError(
            f"{', '.join(both)} stands under layers.functions and under protect.functions. Protect the other functions."
        )
    layers = _layers(config, model)
    names = " and ".join(config.functions)
    if config.how == "kl":
        rows = f"anchor rows of {names}" if names else "anchor rows"
        where = f" (read at layers {layer_list(layers)})" if layers else ""
        held = f"held to those of the base model by a KL term of weight {config.beta:g}"
        return Protection(layers, sentence=f"the answers to {rows}{where} are {held}")
    reads = f"layers {layer_list(layers)}, where {names} read the image"
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
    if config.map is None:
        return ()
    fitting = FunctionMap.load(config.map).check_model(**dict(model), allow_other_model=config.allow_other_model)
    return tuple(fitting.layers_of(config.functions))
