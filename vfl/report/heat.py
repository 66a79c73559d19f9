"""Heat maps, as cells of a grid for a page's inline SVG."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from vfl.report.charts import Tick, shade
from vfl.report.scales import Number, finite, whole_ticks
from vfl.report.sheet import Sheet
from vfl.report.words import shown

NOTHING = "#f0f0f0"


@dataclass(frozen=True)
class Heat:
    """A table of numbers by layer (rows) and head (columns)."""

    title: str
    rows: list[list[Number]]


@dataclass(frozen=True)
class HeatChart:
    """Cells are (column, row, colour, what it says) in a grid of `columns` x `height` units; `marks` are columns."""

    title: str
    cells: list[tuple[int, int, str, str]]
    columns: int
    height: int
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    low: str
    high: str
    marks: list[int]
    sheet: Sheet


def heat_chart(
    title: str,
    rows: Sequence[Sequence[Number]],
    down: tuple[str, Sequence[float]],
    across: tuple[str, Sequence[float]],
    *,
    columns: Mapping[int, str] | None = None,
    names: Mapping[int, str] | None = None,
    marked: Collection[int] = (),
) -> HeatChart | None:
    """A table of numbers ready to be drawn, colours from its lowest to its highest; None without a number in it.

    Args:
        title: the heading.
        rows: numbers by row and column, None where there is none.
        down: what a row is, and which each one is: ("layer", range(12)).
        across: likewise for columns.
        columns: texts below columns, by place; by default round numbers.
        names: texts beside rows, likewise.
        marked: columns that are marked below.
    """
    values = [value for row in rows for value in row if finite(value)]
    if not values:
        return None
    low, high = min(values), max(values)
    span = high - low or 1.0
    width, height = len(rows[0]), len(rows)
    cells = []
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            colour = shade((value - low) / span) if finite(value) else NOTHING
            name = f"{down[0]} {down[1][y]:g}, {across[0]} {across[1][x]:g}"
            cells.append((x, y, colour, f"{name}: {shown(value, '') if finite(value) else 'none'}"))
    return HeatChart(
        title=title,
        cells=cells,
        columns=width,
        height=height,
        x_ticks=_ticks(width, columns),
        y_ticks=_ticks(height, names),
        low=_short(low, span),
        high=_short(high, span),
        marks=sorted(marked),
        sheet=Sheet(
            title,
            [down[0], *(f"{across[0]} {at:g}" for at in across[1])],
            [[at, *row] for at, row in zip(down[1], rows, strict=True)],
        ),
    )


def _ticks(count: int, texts: Mapping[int, str] | None) -> list[Tick]:
    texts = {at: f"{at:g}" for at in whole_ticks(count)} if texts is None else texts
    return [Tick(round(100 * (at + 0.5) / count, 3), text) for at, text in texts.items()]


def _short(value: float, span: float) -> str:
    """A number to a thousandth of the span: 1.4e-11 of 0..1 is 0."""
    return shown(round(value / span, 3) * span, "")
