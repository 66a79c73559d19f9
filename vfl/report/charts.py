"""Numbers for the report's inline SVG: every chart is a 100 x 100 box that the page stretches to its place.

Layer k of L is a cell of width 100 / L, so curves and heat map line up. Text never goes into the stretched SVG.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# Okabe and Ito's palette, which stays apart for the common colour blindnesses; its yellow is too pale for white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6F4E9C", "#5A5A5A")
DASHES = ("", "6 3", "2 2.5")  # from the ninth function on colours repeat, with another dash
SEQUENTIAL = ((255, 255, 255), (198, 219, 239), (107, 174, 214), (33, 113, 181), (8, 48, 107))


@dataclass(frozen=True)
class Ink:
    """How one function or line is drawn everywhere."""

    colour: str
    dash: str


PLAIN = Ink(COLOURS[0], "")


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


def line(values: Sequence[float], low: float = 0.0, high: float = 1.0) -> str:
    """Path of a curve, one point a layer."""
    points = (f"{x_of(k, len(values))} {y_of(value, low, high)}" for k, value in enumerate(values))
    return "M" + " L".join(points)


def area(lower: Sequence[float], upper: Sequence[float]) -> str:
    """Closed path between two curves of rates."""
    back = [f"{x_of(k, len(lower))} {y_of(lower[k])}" for k in reversed(range(len(lower)))]
    return line(upper) + " L" + " L".join(back) + " Z"


def y_of(value: float, low: float = 0.0, high: float = 1.0) -> float:
    return round(100 - 100 * (value - low) / (high - low), 3)


def layer_ticks(num_layers: int, most: int = 8) -> list[Tick]:
    """Round layer numbers, at most `most` of them."""
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**6) if (num_layers - 1) / s < most)
    return [Tick(x_of(k, num_layers), str(k)) for k in range(0, num_layers, step)]


def shade(rate: float) -> str:
    """White to dark blue, for a rate in 0..1."""
    position = min(max(rate, 0.0), 1.0) * (len(SEQUENTIAL) - 1)
    n = min(int(position), len(SEQUENTIAL) - 2)
    mixed = (round(a + (b - a) * (position - n)) for a, b in zip(SEQUENTIAL[n], SEQUENTIAL[n + 1], strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)
