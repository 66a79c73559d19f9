"""How scores are spread, as bars for the report's inline SVG (a 100 x 100 box, text beside it as HTML)."""

from dataclasses import dataclass
from typing import Any

from vfl.report.charts import Ink, Tick
from vfl.select.shards.score_folder import column

BINS = 32


@dataclass(frozen=True)
class Bar:
    left: float
    width: float
    height: float  # of all rows
    chosen: float  # of these, the chosen
    says: str


@dataclass(frozen=True)
class Histogram:
    """`note` says what lies beyond the ends. Heights are square roots: most drops are zero, and few rows must show."""

    title: str
    ink: Ink
    bars: list[Bar]
    ticks: list[Tick]
    most: int
    note: str


def histogram(connection: Any, name: str, title: str, ink: Ink, *, subset: bool) -> Histogram | None:
    """The spread of a column over all rows that have it, from its 1 % to its 99 % quantile; None without values."""
    value = f"(CASE WHEN isfinite({column(name)}::DOUBLE) THEN {column(name)}::DOUBLE END)"
    low, high, least, most, count = connection.execute(
        f"SELECT approx_quantile({value}, 0.01), approx_quantile({value}, 0.99), min({value}), max({value}),"
        f" count({value}) FROM classed"
    ).fetchone()
    if not count:
        return None
    if least == most:
        low, high = least - 0.5, least + 0.5
    elif low == high:
        low, high = least, most
    width = (high - low) / BINS
    place = f"greatest(0, least({BINS - 1}, floor(({value} - {low!r}) / {width!r})))::INT"
    chosen = "position IN (SELECT position FROM chosen)" if subset else "false"
    found = {
        n: (rows, taken)
        for n, rows, taken in connection.execute(
            f"SELECT {place} AS n, count(*), count(*) FILTER ({chosen}) FROM classed"
            f" WHERE {value} IS NOT NULL GROUP BY n"
        ).fetchall()
    }
    highest = max(rows for rows, _ in found.values())
    bars = []
    for n, (rows, taken) in sorted(found.items()):
        says = f"{low + n * width:.3g} to {low + (n + 1) * width:.3g}: {rows:,} rows" + (
            f", {taken:,} chosen" if subset else ""
        )
        bars.append(
            Bar(round(100 * n / BINS, 3), round(100 / BINS, 3), _height(rows, highest), _height(taken, highest), says)
        )
    ticks = [Tick(at, f"{low + at / 100 * (high - low):.2g}") for at in (0, 25, 50, 75, 100)]
    beyond = least < low or most > high
    note = f"The outer bars hold all beyond them, from {least:.3g} to {most:.3g}." if beyond else ""
    return Histogram(title, ink, bars, ticks, highest, note)


def _height(rows: int, highest: int) -> float:
    return round(100 * (rows / highest) ** 0.5, 3)
