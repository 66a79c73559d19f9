"""Curves over training steps, as numbers for the report's inline SVG (a 100 x 100 box, text beside it as HTML).

Continues vfl/report/charts.py, whose x is a layer; here it is any number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

from vfl.report.charts import Ink, Tick, shade, y_of

MOST_POINTS = 400  # of a line: more than a screen shows, few enough for a small page
MOST_DOTS = 30
ROWS = 16  # steps of a heat map
PLAIN = Ink("#0072B2", "")
NOTHING = "#f0f0f0"


@dataclass(frozen=True)
class Series:
    """Points of a line, x ascending; `low` and `high` are its intervals, where there are any."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    ink: Ink = PLAIN


@dataclass(frozen=True)
class Line:
    name: str
    ink: Ink
    path: str
    area: str | None
    dots: list[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    title: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


@dataclass(frozen=True)
class HeatRow:
    label: str
    cells: list[tuple[float, str, str]]  # left, colour, what it says


@dataclass(frozen=True)
class Heat:
    """One row a step, one cell a place on the axis; colours from `low` to `high`."""

    title: str
    axis: str
    rows: list[HeatRow]
    width: float
    ticks: list[Tick]
    low: str
    high: str
    marks: list[float]  # left ends of the cells that are marked (trained layers)


def chart(
    title: str,
    series: Sequence[Series],
    *,
    rates: bool = False,
    x_range: tuple[float, float] | None = None,
) -> Chart | None:
    """A chart of lines with points, None if there is no point; `rates` are shares, drawn from 0 to 100 per cent."""
    series = [thinned(one) for one in series]
    ys = [y for one in series for y in one.y if _finite(y)]
    xs = [x for one in series for x in one.x]
    if not ys:
        return None
    first, last = x_range or (min(xs), max(xs))
    if first == last:  # one step: put it in the middle
        first, last = first - 1, last + 1
    low, high = (0.0, 1.0) if rates else _room(min(ys), max(ys))
    ticks = [0.0, 0.5, 1.0] if rates else ticks_of(low, high, 4)
    return Chart(
        title=title,
        lines=[_line(one, (first, last), (low, high)) for one in series],
        x_ticks=[Tick(_x(t, first, last), f"{t:g}") for t in ticks_of(first, last, 6) if t == int(t) and t >= 0],
        y_ticks=[Tick(y_of(t, low, high), f"{100 * t:g}" if rates else f"{t:g}") for t in ticks],
    )


def heat(
    title: str,
    axis: str,
    at: Sequence[float],
    rows: Sequence[tuple[int, Sequence[float | None]]],
    marked: Sequence[int],
) -> Heat | None:
    """Values over an axis, one row a step; None if there is no value. Of many steps an even choice is shown."""
    if len(rows) > ROWS:
        rows = [rows[round(n * (len(rows) - 1) / (ROWS - 1))] for n in range(ROWS)]
    values = [value for _, row in rows for value in row if _finite(value)]
    if not values:
        return None
    low, high = min(values), max(values)
    span = high - low or 1.0
    width = 100 / len(at)

    def cell(n: int, step: int, value: float | None) -> tuple[float, str, str]:
        place = f"step {step}, {axis} {at[n]:g}"
        if not _finite(value):
            return round(n * width, 3), NOTHING, f"{place}: none"
        return round(n * width, 3), shade((value - low) / span), f"{place}: {value:.4g}"

    every = next(s for s in (1, 2, 5, 10, 20, 50, 100, 10**6) if (len(at) - 1) / s < 8)
    return Heat(
        title=title,
        axis=axis,
        rows=[HeatRow(f"{step:,}", [cell(n, step, value) for n, value in enumerate(row)]) for step, row in rows],
        width=round(width, 3),
        ticks=[Tick(round((n + 0.5) * width, 3), f"{at[n]:g}") for n in range(0, len(at), every)],
        low=_short(low, span),
        high=_short(high, span),
        marks=[round(n * width, 3) for n, place in enumerate(at) if place in set(marked)],
    )


def thinned(series: Series) -> Series:
    """At most MOST_POINTS points: means of neighbours, so that a long noisy line keeps its level."""
    if len(series.x) <= MOST_POINTS or series.low is not None:
        return series
    size = math.ceil(len(series.x) / MOST_POINTS)
    x, y = [], []
    for start in range(0, len(series.x), size):
        part = [v for v in series.y[start : start + size] if _finite(v)]
        if part:
            x.append(sum(series.x[start : start + size]) / len(series.x[start : start + size]))
            y.append(sum(part) / len(part))
    return Series(series.name, x, y, ink=series.ink)


def ticks_of(low: float, high: float, most: int) -> list[float]:
    """Round numbers between low and high, at most `most` of them and at least one, if there is any."""
    if high <= low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power * digit for digit in (1, 2, 5, 10, 20, 50)):
        first = math.ceil(low / step - 1e-9)
        last = math.floor(high / step + 1e-9)
        if 1 <= last - first + 1 <= most:
            # Rounded: 3 * 0.1 is 0.30000000000000004.
            return [round(n * step, 12) for n in range(first, last + 1)]
    return [low, high]


def _line(series: Series, x_range: tuple[float, float], y_range: tuple[float, float]) -> Line:
    points = [
        (_x(x, *x_range), y_of(y, *y_range)) if _finite(y) else None for x, y in zip(series.x, series.y, strict=True)
    ]
    path, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"  # a gap
            continue
        path.append(f"{pen}{point[0]} {point[1]}")
        pen = "L"
    known = [point for point in points if point is not None]
    area = None
    if series.low is not None and series.high is not None and len(series.x) > 1:
        there = [f"{_x(x, *x_range)} {y_of(y, *y_range)}" for x, y in zip(series.x, series.high, strict=True)]
        back = [f"{_x(x, *x_range)} {y_of(y, *y_range)}" for x, y in zip(series.x, series.low, strict=True)]
        area = "M" + " L".join(there + back[::-1]) + " Z"
    return Line(series.name, series.ink, " ".join(path), area, known if len(known) <= MOST_DOTS else [])


def _x(value: float, first: float, last: float) -> float:
    return round(100 * (value - first) / (last - first), 3)


def _short(value: float, span: float) -> str:
    """A number to a thousandth of the span: 1.4e-11 of 0..1 is 0."""
    return f"{round(value / span, 3) * span:.3g}"


def _room(low: float, high: float) -> tuple[float, float]:
    """A little room above and below, and some around a single value."""
    span = high - low or abs(high) or 1.0
    return low - 0.06 * span, high + 0.06 * span


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
