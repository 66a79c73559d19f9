"""Numbers for the page's inline SVG: boxes of 100 x 100 that the page stretches, text beside them as HTML.

Continues vfl/report/charts.py, whose x is a layer; here it is any number.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from vfl.measure.report.panels import LEAST_SPAN, Dot, Heat, Number, Panel, Series, shown
from vfl.metrics.spec import SHARE
from vfl.report.charts import Ink, Tick, shade, y_of

NOTHING = "#f0f0f0"


@dataclass(frozen=True)
class Line:
    name: str
    ink: Ink
    path: str
    areas: list[str]
    dots: list[tuple[float, float, str]]  # x, y, what it says


@dataclass(frozen=True)
class Level:
    name: str
    y: float
    text: str


@dataclass(frozen=True)
class Chart:
    title: str
    axis: str
    unit: str
    lines: list[Line]
    levels: list[Level]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


@dataclass(frozen=True)
class HeatChart:
    """Cells are (x, y, colour, what it says) in a grid of `columns` x `height` units."""

    title: str
    cells: list[tuple[int, int, str, str]]
    columns: int
    height: int
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    low: str
    high: str


@dataclass(frozen=True)
class DotRow:
    name: str
    x: float
    low: float | None
    high: float | None
    text: str


def chart(panel: Panel, ink: Mapping[str, Ink]) -> Chart | None:
    """A panel ready to be drawn, each line in its ink; None without a number in it."""
    ends = [v for one in panel.series for values in (one.value, one.low, one.high) for v in values if finite(v)]
    if not any(finite(v) for one in panel.series for v in one.value):
        return None
    xs = [x for one in panel.series for x in one.at]
    first, last = min(xs), max(xs)
    room = 0.5 if panel.places else 0.02 * (last - first)
    x_range = (first - (room or 1), last + (room or 1))
    ends += panel.levels.values()
    y_range = _room(min(ends), max(ends), LEAST_SPAN.get(panel.unit, 0.0))
    if panel.unit == SHARE and min(ends) >= 0 and max(ends) <= 1:
        y_range = (0.0, 1.0)
    if panel.places:
        x_ticks = [Tick(_x(x, x_range), name) for x, name in zip(panel.series[0].at, panel.places, strict=True)]
    else:
        x_ticks = [Tick(_x(x, x_range), f"{x:g}") for x in ticks_of(first, last, 8) if x == int(x)]
    y_ticks = [0.0, 0.5, 1.0] if y_range == (0.0, 1.0) else ticks_of(*y_range, 4)
    return Chart(
        title=panel.title,
        axis=panel.axis,
        unit="%" if panel.unit == SHARE else panel.unit,
        lines=[_line(one, panel, ink[one.name], x_range, y_range) for one in panel.series],
        levels=[Level(name, y_of(v, *y_range), shown(v, panel.unit)) for name, v in panel.levels.items()],
        x_ticks=x_ticks,
        y_ticks=[Tick(y_of(y, *y_range), f"{100 * y:g}" if panel.unit == SHARE else f"{y:g}") for y in y_ticks],
    )


def heat_chart(heat: Heat) -> HeatChart | None:
    """A table by layer and head, ready to be drawn; None without a number in it."""
    values = [value for row in heat.rows for value in row if finite(value)]
    if not values:
        return None
    low, high = min(values), max(values)
    columns, height = len(heat.rows[0]), len(heat.rows)
    cells = []
    for layer, row in enumerate(heat.rows):
        for head, value in enumerate(row):
            colour = shade((value - low) / (high - low or 1.0)) if finite(value) else NOTHING
            cells.append((head, layer, colour, f"layer {layer}, head {head}: {shown(value, '')}"))
    return HeatChart(
        title=heat.title,
        cells=cells,
        columns=columns,
        height=height,
        x_ticks=[Tick(round(100 * (x + 0.5) / columns, 3), f"{x:g}") for x in _whole(columns)],
        y_ticks=[Tick(round(100 * (y + 0.5) / height, 3), f"{y:g}") for y in _whole(height)],
        low=shown(low, ""),
        high=shown(high, ""),
    )


def dot_rows(dots: list[Dot]) -> tuple[list[DotRow], list[Tick]]:
    """Numbers with intervals on one axis, shares from 0 to 100 per cent."""
    ends = [v for dot in dots for v in (dot.value, dot.low, dot.high) if finite(v)]
    shares = all(dot.unit == SHARE for dot in dots)
    ranged = (0.0, 1.0) if shares and min(ends) >= 0 and max(ends) <= 1 else _room(min(ends), max(ends))
    rows = []
    for dot in dots:
        low, high = (_x(v, ranged) if finite(v) else None for v in (dot.low, dot.high))
        rows.append(DotRow(dot.name, _x(dot.value, ranged), low, high, shown(dot.value, dot.unit)))
    return rows, [Tick(_x(t, ranged), f"{100 * t:g}" if shares else f"{t:g}") for t in ticks_of(*ranged, 5)]


def ticks_of(low: float, high: float, most: int) -> list[float]:
    """Round numbers between low and high, at most `most` of them and at least one, if there is any."""
    if high <= low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power * digit for digit in (1, 2, 5, 10, 20, 50)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if 1 <= last - first + 1 <= most:
            return [round(n * step, 12) for n in range(first, last + 1)]  # 3 * 0.1 is 0.30000000000000004
    return [low, high]


def finite(value: Number) -> TypeGuard[float]:
    """Whether there is a number."""
    return value is not None and math.isfinite(value)


def _line(series: Series, panel: Panel, ink: Ink, x_range: tuple[float, float], y_range: tuple[float, float]) -> Line:
    path, dots, pen = [], [], "M"
    for x, value, low, high in zip(series.at, series.value, series.low, series.high, strict=True):
        if not finite(value):
            pen = "M"  # a gap
            continue
        place = f"{_x(x, x_range)} {y_of(value, *y_range)}"
        path.append(f"{pen}{place}")
        pen = "L"
        says = f"{series.name}, {panel.axis} {x:g}: {shown(value, panel.unit)}"
        if finite(low) and finite(high):
            says += f" ({shown(low, panel.unit)} to {shown(high, panel.unit)})"
        dots.append((_x(x, x_range), y_of(value, *y_range), says))
    return Line(series.name, ink, " ".join(path), _areas(series, x_range, y_range), dots)


def _areas(series: Series, x_range: tuple[float, float], y_range: tuple[float, float]) -> list[str]:
    """The interval as closed paths, one for each stretch of points that have one."""
    areas, upper, lower = [], [], []
    for x, low, high in [*zip(series.at, series.low, series.high, strict=True), (0.0, None, None)]:
        if finite(low) and finite(high):
            upper.append(f"{_x(x, x_range)} {y_of(high, *y_range)}")
            lower.append(f"{_x(x, x_range)} {y_of(low, *y_range)}")
            continue
        if len(upper) > 1:
            areas.append("M" + " L".join(upper + lower[::-1]) + " Z")
        upper, lower = [], []
    return areas


def _x(value: float, ranged: tuple[float, float]) -> float:
    return round(100 * (value - ranged[0]) / (ranged[1] - ranged[0]), 3)


def _whole(count: int) -> list[float]:
    return [t for t in ticks_of(0, count - 1, 8) if t == int(t)] if count > 1 else [0]


def _room(low: float, high: float, least: float = 0.0) -> tuple[float, float]:
    """A little room above and below, and some around values that are closer than `least`, or a single one."""
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2
    span = high - low or abs(high) or 1.0
    return low - 0.06 * span, high + 0.06 * span
