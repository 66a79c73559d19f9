"""Lines over an axis of any numbers, as numbers for a page's inline SVG: a box of 100 x 100 that the page stretches.

`charts.html.jinja` draws them, with all text as HTML beside the box.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vfl.report.charts import PLAIN, Ink, Tick, y_of
from vfl.report.scales import Number, finite, place, ticks_of, with_room
from vfl.report.sheet import Sheet, by_place, with_unit
from vfl.report.words import SHARE, shown

# Less than this between the lowest and the highest value is noise, and is not stretched to the full height.
LEAST_SPAN = {"probability": 0.02, "nats per token": 0.05}
MOST_POINTS = 400  # of a line: more than a screen shows, few enough for a small page
MOST_DOTS = 130  # a line of more points has no dots

Ends = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Points of a line, `at` ascending; `low` and `high` are the ends of its intervals, where there are any."""

    name: str
    at: Sequence[float]
    value: Sequence[Number]
    low: Sequence[Number] | None = None
    high: Sequence[Number] | None = None

    def intervals(self) -> list[tuple[Number, Number]]:
        """(low, high) of each point."""
        if self.low is None or self.high is None:
            return [(None, None)] * len(self.at)
        return list(zip(self.low, self.high, strict=True))


@dataclass(frozen=True)
class Panel:
    """One chart. `levels` are level lines by name; `places` name the points of an axis that is no number.

    `ends` are the lowest and the highest value of several charts on one scale.
    """

    title: str
    axis: str
    unit: str
    series: list[Series]
    levels: dict[str, float] = field(default_factory=dict)
    places: list[str] | None = None
    ends: Ends | None = None


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
    sheet: Sheet


def chart(panel: Panel, ink: Mapping[str, Ink] | None = None) -> Chart | None:
    """A panel ready to be drawn, each line in its ink; None without a number in it."""
    series = [thinned(line) for line in panel.series]
    values = [value for line in series for value in line.value if finite(value)]
    if not values:
        return None
    intervals = [end for line in series for pair in line.intervals() for end in pair if finite(end)]
    ends = [*values, *intervals, *panel.levels.values(), *(panel.ends or ())]
    xs = [x for line in series for x in line.at]
    first, last = min(xs), max(xs)
    room = (0.5 if panel.places else 0.02 * (last - first)) or 1
    x_ends = (first - room, last + room)
    y_ends = with_room(min(ends), max(ends), LEAST_SPAN.get(panel.unit, 0.0))
    if panel.unit == SHARE and min(ends) >= 0 and max(ends) <= 1:
        y_ends = (0.0, 1.0)
    if panel.places:
        x_ticks = [Tick(place(x, x_ends), name) for x, name in zip(series[0].at, panel.places, strict=True)]
    else:
        x_ticks = [Tick(place(x, x_ends), f"{x:g}") for x in ticks_of(first, last, 8) if x == int(x)]
    y_ticks = [0.0, 0.5, 1.0] if y_ends == (0.0, 1.0) else ticks_of(*y_ends, 4)
    return Chart(
        title=panel.title,
        axis=panel.axis,
        unit="%" if panel.unit == SHARE else panel.unit,
        lines=[_line(line, panel, (ink or {}).get(line.name, PLAIN), x_ends, y_ends) for line in series],
        levels=[Level(name, y_of(v, *y_ends), shown(v, panel.unit)) for name, v in panel.levels.items()],
        x_ticks=x_ticks,
        y_ticks=[Tick(y_of(y, *y_ends), f"{100 * y:g}" if panel.unit == SHARE else f"{y:g}") for y in y_ticks],
        sheet=_sheet(panel, series),
    )


def lines_of(panels: Sequence[Panel]) -> list[str]:
    """Names of all lines, so that one has the same colour in every panel."""
    return list(dict.fromkeys(line.name for panel in panels for line in panel.series))


def thinned(series: Series) -> Series:
    """At most MOST_POINTS points: means of neighbours, so that a long noisy line keeps its level."""
    if len(series.at) <= MOST_POINTS or series.low is not None:
        return series
    size = math.ceil(len(series.at) / MOST_POINTS)
    at, means = [], []
    for start in range(0, len(series.at), size):
        values = [value for value in series.value[start : start + size] if finite(value)]
        if values:
            at.append(sum(series.at[start : start + size]) / len(series.at[start : start + size]))
            means.append(sum(values) / len(values))
    return Series(series.name, at, means)


def _sheet(panel: Panel, series: Sequence[Series]) -> Sheet:
    """A column a line, with the ends of its intervals, and one a level."""
    columns: list[tuple[str, Sequence[float], Sequence[Number]]] = []
    for line in series:
        columns.append((with_unit(line.name, panel.unit), line.at, line.value))
        low, high = zip(*line.intervals(), strict=True) if line.at else ((), ())
        if any(map(finite, low)):
            columns.append((with_unit(f"{line.name} low", panel.unit), line.at, low))
            columns.append((with_unit(f"{line.name} high", panel.unit), line.at, high))
    longest = max((line.at for line in series), key=len)
    for name, level in panel.levels.items():
        columns.append((with_unit(name, panel.unit), longest, [level] * len(longest)))
    title = panel.title or ", ".join(line.name for line in series)
    unit = "" if panel.unit == SHARE else f" {panel.unit}"  # two panels of one title differ in it
    return by_place(title + unit, panel.axis, columns, panel.places)


def _line(series: Series, panel: Panel, ink: Ink, x_ends: Ends, y_ends: Ends) -> Line:
    path, dots, pen = [], [], "M"
    for x, value, (low, high) in zip(series.at, series.value, series.intervals(), strict=True):
        if not finite(value):
            pen = "M"  # a gap
            continue
        path.append(f"{pen}{place(x, x_ends)} {y_of(value, *y_ends)}")
        pen = "L"
        says = f"{series.name}, {panel.axis} {x:g}: {shown(value, panel.unit)}"
        if finite(low) and finite(high):
            says += f" ({shown(low, panel.unit)} to {shown(high, panel.unit)})"
        dots.append((place(x, x_ends), y_of(value, *y_ends), says))
    areas = _areas(series, x_ends, y_ends)
    return Line(series.name, ink, " ".join(path), areas, dots if len(dots) <= MOST_DOTS else [])


def _areas(series: Series, x_ends: Ends, y_ends: Ends) -> list[str]:
    """The interval as closed paths, one for each stretch of points that have one."""
    areas, upper, lower = [], [], []
    for x, (low, high) in [*zip(series.at, series.intervals(), strict=True), (0.0, (None, None))]:
        if finite(low) and finite(high):
            upper.append(f"{place(x, x_ends)} {y_of(high, *y_ends)}")
            lower.append(f"{place(x, x_ends)} {y_of(low, *y_ends)}")
            continue
        if len(upper) > 1:
            areas.append("M" + " L".join(upper + lower[::-1]) + " Z")
        upper, lower = [], []
    return areas
