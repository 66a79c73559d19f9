"""Bars of a histogram, for a page's inline SVG (a 100 x 100 box, text beside it as HTML)."""

from collections.abc import Mapping
from dataclasses import dataclass

from vfl.report.charts import Ink, Tick
from vfl.report.sheet import Cell, Sheet


@dataclass(frozen=True)
class Bar:
    left: float
    width: float
    height: float  # of all rows
    chosen: float  # of these, the chosen
    says: str


@dataclass(frozen=True)
class Histogram:
    """`note` says what lies beyond the ends. Heights are square roots: most values are zero, and few rows must show."""

    title: str
    ink: Ink
    bars: list[Bar]
    ticks: list[Tick]
    most: int
    note: str
    sheet: Sheet


def histogram_of(
    title: str,
    ink: Ink,
    counts: Mapping[int, tuple[int, int]],
    bins: int,
    ends: tuple[float, float],
    *,
    chosen: bool,
    note: str = "",
) -> Histogram:
    """Bars ready to be drawn.

    Args:
        title: the heading.
        ink: the bars' colour.
        counts: (rows, chosen rows) by bin, bins without rows left out.
        bins: number of bins between the ends.
        ends: lower end of the first bin and upper end of the last.
        chosen: whether the texts tell chosen rows.
        note: a sentence below the chart.
    """
    low, high = ends
    width = (high - low) / bins
    highest = max(rows for rows, _ in counts.values())
    bars = []
    for n, (rows, taken) in sorted(counts.items()):
        says = f"{low + n * width:.3g} to {low + (n + 1) * width:.3g}: {rows:,} rows"
        says += f", {taken:,} chosen" if chosen else ""
        height, height_chosen = (round(100 * (count / highest) ** 0.5, 3) for count in (rows, taken))
        bars.append(Bar(round(100 * n / bins, 3), round(100 / bins, 3), height, height_chosen, says))
    ticks = [Tick(at, f"{low + at / 100 * (high - low):.2g}") for at in (0, 25, 50, 75, 100)]
    headings = ["from", "to", "rows", *(["chosen rows"] if chosen else [])]
    table: list[list[Cell]] = []
    for n, (count, taken) in sorted(counts.items()):
        table.append([low + n * width, low + (n + 1) * width, count, *([taken] if chosen else [])])
    return Histogram(title, ink, bars, ticks, highest, note, Sheet(title, headings, table))
