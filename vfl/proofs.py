"""What a map says for the layers it names, and of those it does not name (docs/map-format.md)."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from vfl.io.layers import layer_list

Share = Annotated[float, Field(ge=0, le=1)]
State = Literal["read", "not read", "undecided"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class LayerNull(_Strict):
    """The layer that changes most, against what the largest of exchangeable layers would change."""

    p: Share
    layer: int = Field(ge=0)
    largest: float = Field(ge=-1, le=1)
    threshold: float = Field(ge=-1, le=1)
    level: Share
    permutations: int = Field(ge=1)

    def in_words(self) -> str:
        """The test in a sentence without a full stop."""
        if self.p > 1 - self.level:
            return f"no layer stands out from exchangeable layers (p = {self.p:.2g})"
        return (
            f"layer {self.layer} stands out from exchangeable layers: {self.largest:.0%} beyond the control, where the "
            f"largest of permuted layers reaches {self.threshold:.0%} at most in {self.level:.0%} of "
            f"{self.permutations} permutations (p = {self.p:.2g})"
        )


class Deletion(_Strict):
    """For each chosen layer, how many samples must be deleted, the worst ones, before the rule chooses it no longer."""

    at_least: list[int]
    at_most: list[int]

    def in_words(self, place: int, samples: int, unit: str) -> str:
        """Of the layer at this place: such as "53 of 60 pairs"."""
        low, high = self.at_least[place], self.at_most[place]
        return f"{high if low == high else f'{low}–{high}'} of {samples} {unit}"


class Equivalence(_Strict):
    """Which layers are read, which are shown not to be, and of which nothing is shown."""

    margin: Share
    at_most: list[float | None]
    states: list[State]

    def of(self, state: State) -> list[int]:
        """The layers in this state."""
        return [k for k, other in enumerate(self.states) if other == state]

    def in_words(self) -> str:
        """The layers that are not read, and those that are undecided, in a sentence without a full stop."""
        unread, undecided = (layer_list(self.of(state)) or "none" for state in ("not read", "undecided"))
        return f"shown to change less than {self.margin:.0%} of the answers: {unread}; undecided: {undecided}"


class RandomWeights(_Strict):
    """The same pairs and the same rule on the same architecture with weights drawn anew: no layer should be named."""

    seed: int
    layers: list[int]
    changed: list[Share | None]
    control: list[Share | None] | None

    def in_words(self) -> str:
        """What was named there, in a sentence without a full stop."""
        if not self.layers:
            return f"with random weights (seed {self.seed}) the rule names no layer"
        return (
            f"with random weights (seed {self.seed}) the rule names {layer_list(self.layers)}: what no training put "
            "there may be named here, too"
        )


class OffManifold(_Strict):
    """How far swapped states lie from ordinary ones, as a multiple of how far these lie from each other."""

    ratio: list[float | None]
    high: list[float | None]
    pairs: int = Field(ge=1)
    states: int = Field(ge=1)

    def in_words(self, layers: Sequence[int]) -> str:
        """Of some layers, or of all where there are none, in a sentence without a full stop."""
        of = list(layers) or list(range(len(self.ratio)))
        known = [value for value in (self.ratio[k] for k in of) if value is not None]
        highest = [value for value in (self.high[k] for k in of) if value is not None]
        if not known:
            return "ordinary states do not differ, so nothing can be said of swapped ones"
        which = f"layer{'s' if len(of) > 1 else ''} {layer_list(of)}" if layers else "any layer"
        return (
            f"states after a swap of {which} lie {max(known):.2g} times as far from the nearest ordinary state as "
            f"ordinary ones lie from each other (the median of {self.pairs} pairs, at the layer's output; 90% of them "
            f"within {max(highest):.2g} times)"
        )
