"""Points with intervals in both directions, and the front of those that none beats, for a page's inline SVG.

`charts.html.jinja` draws them in a box of 100 x 100, with all text as HTML beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vfl.report.charts import PLAIN, Ink, Tick, y_of
from vfl.report.scales import place, ticks_of, with_room
from vfl.report.sheet import Sheet

Ends = tuple[float, float, float]  # a value and its interval's ends; three times the value where there is none


@dataclass(frozen=True)
class Point:
    """A point by its name, with a text for whoever points at it."""

    name: str
    x: Ends
    y: Ends
    says: str


@dataclass(frozen=True)
class Mark:
    name: str
    number: int
    ink: Ink
    x: Ends  # places, in per cent of the box
    y: Ends
    says: str


@dataclass(frozen=True)
class Scatter:
    """`front` is a path like stairs through the points that none beats."""

    title: str
    axis: str
    marks: list[Mark]
    front: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    sheet: Sheet


def scatter(
    title: str,
    axis: str,
    points: Sequence[Point],
    front: Sequence[int] = (),
    ink: Mapping[str, Ink] | None = None,
) -> Scatter | None:
    """Points ready to be drawn; None without any.

    Args:
        title: what stands upwards.
        axis: what stands to the right.
        points: in the order of their numbers.
        front: places of the points that none beats, from left to right.
        ink: by name.
    """
    if not points:
        return None
    xs, ys = ([end for point in points for end in getattr(point, way)] for way in ("x", "y"))
    x_ends, y_ends = with_room(min(xs), max(xs)), with_room(min(ys), max(ys))
    marks = []
    for number, point in enumerate(points, 1):
        value, low, high = point.x
        middle, bottom, top = point.y
        marks.append(
            Mark(
                name=point.name,
                number=number,
                ink=(ink or {}).get(point.name, PLAIN),
                x=(place(value, x_ends), place(low, x_ends), place(high, x_ends)),
                y=(y_of(middle, *y_ends), y_of(bottom, *y_ends), y_of(top, *y_ends)),
                says=point.says,
            )
        )
    stairs = [f"{'H' if n else 'M'}{marks[at].x[0]} {'V' if n else ''}{marks[at].y[0]}" for n, at in enumerate(front)]
    return Scatter(
        title=title,
        axis=axis,
        marks=marks,
        front=" ".join(stairs) if len(stairs) > 1 else "",
        x_ticks=[Tick(place(x, x_ends), _short(x)) for x in ticks_of(*x_ends, 5)],
        y_ticks=[Tick(y_of(y, *y_ends), _short(y)) for y in ticks_of(*y_ends, 5)],
        sheet=Sheet(
            f"{title} {axis}",
            ["name", *(f"{what}{end}" for what in (axis, title) for end in ("", " low", " high"))],
            [[point.name, *point.x, *point.y] for point in points],
        ),
    )


def _short(value: float) -> str:
    """350000 -> 350k; a step of thousands below ten thousand stays as it is."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and size > 1e3):
            return f"{value / size:g}{letter}"
    return f"{value:g}"
