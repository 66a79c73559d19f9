"""What kind of shift the training rows look like by where their gradient lies."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from vfl.io.layers import layer_list
from vfl.train.layers.rules import shares


class Shift(BaseModel):
    """The gradient rule's sum below, at and above the layers where the text reads the image for some functions.

    Attributes:
        reading: these layers; what lies between the first and the last of them counts as at them.
        below, at, above: shares of the sum.
        densest: the part with the most a layer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    functions: tuple[str, ...]
    reading: tuple[int, ...]
    below: float
    at: float
    above: float
    densest: str

    @property
    def sentence(self) -> str:
        looks = {
            "below": "what is new is worked out before the image is read: new looks, or a question in new words",
            "at": "what is new is in the reading itself",
            "above": "what is new comes after the reading: another answer",
        }[self.densest]
        return (
            f"{self.below:.0%} of the gradient lies below the layers where {' and '.join(self.functions)} read the "
            f"image ({layer_list(self.reading)}), {self.at:.0%} at and {self.above:.0%} above them; it is densest "
            f"{self.densest} them, so {looks}."
        )


def shift_of(gradient: Sequence[float], reading: Sequence[int], functions: Sequence[str]) -> Shift:
    """Where the gradient rule's sum lies; `reading` are ascending layers."""
    share = shares(gradient)
    first, last = reading[0], reading[-1]
    parts = {"below": share[:first], "at": share[first : last + 1], "above": share[last + 1 :]}
    densest = max(parts, key=lambda name: sum(parts[name]) / len(parts[name]) if parts[name] else 0.0)
    return Shift(
        functions=tuple(functions),
        reading=tuple(reading),
        densest=densest,
        **{name: sum(values) for name, values in parts.items()},
    )
