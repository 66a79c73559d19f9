"""Numbers for the report's inline SVG: every chart is a 100 x 100 box that the page stretches to its place.

Layer k of L is a cell of width 100 / L, so curves and heat map line up. Text never goes into the stretched SVG.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vfl.io.layers import runs

# Near Okabe and Ito's palette, which stays apart for the common colour blindnesses; each has contrast 3 to white.
COLOURS = ("#0072B2", "#D55E00", "#069583", "#C977BD", "#A6905A", "#3C92F7", "#43105F", "#474747")
DARK, GREY, PALE, WARNING = "#1c2430", "#6b7480", "#8a939e", "#8a4b00"
DASHES = ("", "6 3", "2 2.5")  # from the ninth function on colours repeat, with another dash
PROPERTIES = {colour: f"--c{n}" for n, colour in enumerate(COLOURS, 1)}
PROPERTIES |= {DARK: "--ink", GREY: "--grey", PALE: "--pale", WARNING: "--warn"}
"""What page.css calls these colours: there they are brighter on a dark ground."""
SEQUENTIAL = ((255, 255, 255), (198, 219, 239), (107, 174, 214), (33, 113, 181), (8, 48, 107))


@dataclass(frozen=True)
class Ink:
    """How one function or line is drawn everywhere."""

    colour: str  # as on paper
    dash: str

    @property
    def css(self) -> str:
        """The colour in a page, which has two of each: for a light and for a dark ground."""
        return f"var({PROPERTIES[self.colour]})"


PLAIN = Ink(COLOURS[0], "")
DASH = 0.3  # half the length of a point that has no neighbours, in layers
UNKNOWN = "#e4e4e0"
"""The colour of a layer without a value: not that of a rate."""


@dataclass(frozen=True)
class Tick:
    at: float  # per cent of the width or height
    text: str


def inks(names: Sequence[str]) -> dict[str, Ink]:
    return {
        name: Ink(COLOURS[n % len(COLOURS)], DASHES[n // len(COLOURS) % len(DASHES)]) for n, name in enumerate(names)
    }


def x_of(layer: float, num_layers: int) -> float:
    return round((layer + 0.5) * 100 / num_layers, 3)


def line(values: Sequence[float | None], low: float = 0.0, high: float = 1.0) -> str:
    """Path of a curve, one point a layer, with gaps where there is no value; a point by itself is a short dash."""
    depth = len(values)
    pieces = []
    for run in _stretches(values):
        points = (f"{x_of(k, depth)} {y_of(value, low, high)}" for k, value in _dashed(run))
        pieces.append("M" + " L".join(points))
    return " ".join(pieces)


def area(lower: Sequence[float | None], upper: Sequence[float | None]) -> str:
    """Closed path between two curves of rates, with the same gaps as `line`."""
    depth = len(lower)
    pieces = []
    for run_up, run_down in zip(_stretches(upper), _stretches(lower), strict=True):
        corners = [*_dashed(run_up), *reversed(_dashed(run_down))]
        pieces.append("M" + " L".join(f"{x_of(k, depth)} {y_of(value)}" for k, value in corners) + " Z")
    return " ".join(pieces)


def _stretches(values: Sequence[float | None]) -> list[list[tuple[float, float]]]:
    """Layers in a row that have a value, each with it."""
    value_of = {k: value for k, value in enumerate(values) if value is not None}
    return [[(k, value_of[k]) for k in run] for run in runs(value_of)]


def _dashed(stretch: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The stretch, or both ends of a dash where it is a single point."""
    if len(stretch) > 1:
        return stretch
    return [(k + side, value) for k, value in stretch for side in (-DASH, DASH)]


def y_of(value: float, low: float = 0.0, high: float = 1.0) -> float:
    return round(100 - 100 * (value - low) / (high - low), 3)


def layer_ticks(num_layers: int, most: int = 8) -> list[Tick]:
    """Round layer numbers, at most `most` of them."""
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**6) if (num_layers - 1) / s < most)
    return [Tick(x_of(k, num_layers), str(k)) for k in range(0, num_layers, step)]


def shade(rate: float | None) -> str:
    """White to dark blue, for a rate in 0..1; grey where there is none."""
    if rate is None:
        return UNKNOWN
    position = min(max(rate, 0.0), 1.0) * (len(SEQUENTIAL) - 1)
    n = min(int(position), len(SEQUENTIAL) - 2)
    mixed = (round(a + (b - a) * (position - n)) for a, b in zip(SEQUENTIAL[n], SEQUENTIAL[n + 1], strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)
