"""Numbers with their intervals on one common axis, for a page's inline SVG."""

from collections.abc import Sequence
from dataclasses import dataclass

from vfl.report.charts import Tick
from vfl.report.scales import Number, finite, place, ticks_of, with_room
from vfl.report.sheet import Cell, Sheet
from vfl.report.words import SHARE, shown


@dataclass(frozen=True)
class Dot:
    """A number with its interval, of `n` items; numbers of one name and several groups belong together."""

    name: str
    unit: str
    value: float
    low: Number = None
    high: Number = None
    n: int | None = None
    group: str = ""


@dataclass(frozen=True)
class DotRow:
    name: str
    n: int | None
    x: float
    low: float | None
    high: float | None
    text: str


def dot_rows(dots: Sequence[Dot]) -> tuple[list[DotRow], list[Tick]]:
    """Rows ready to be drawn and the axis below them, shares from 0 to 100 per cent."""
    values = [value for dot in dots for value in (dot.value, dot.low, dot.high) if finite(value)]
    shares = all(dot.unit == SHARE for dot in dots)
    ends = (0.0, 1.0) if shares and min(values) >= 0 and max(values) <= 1 else with_room(min(values), max(values))
    rows = []
    for dot in dots:
        low, high = (place(value, ends) if finite(value) else None for value in (dot.low, dot.high))
        rows.append(DotRow(dot.name, dot.n, place(dot.value, ends), low, high, shown(dot.value, dot.unit)))
    return rows, [Tick(place(tick, ends), f"{100 * tick:g}" if shares else f"{tick:g}") for tick in ticks_of(*ends, 5)]


def dot_sheet(title: str, dots: Sequence[Dot]) -> Sheet:
    """The same numbers, a row each."""
    rows: list[list[Cell]] = [
        [dot.name, "share" if dot.unit == SHARE else dot.unit, dot.value, dot.low, dot.high, dot.n] for dot in dots
    ]
    return Sheet(title, ["name", "unit", "value", "low", "high", "n"], rows)
