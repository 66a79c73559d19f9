"""How scores are spread: histograms of columns, counted in the scores' own files."""

from typing import Any

from vfl.report.bars import Histogram, histogram_of
from vfl.report.charts import Ink
from vfl.select.shards.score_folder import column

BINS = 32


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
    counted = connection.execute(
        f"SELECT {place} AS n, count(*), count(*) FILTER ({chosen}) FROM classed WHERE {value} IS NOT NULL GROUP BY n"
    ).fetchall()
    counts = {n: (rows, taken) for n, rows, taken in counted}
    beyond = least < low or most > high
    note = f"The outer bars hold all beyond them, from {least:.3g} to {most:.3g}." if beyond else ""
    return histogram_of(title, ink, counts, BINS, (low, high), chosen=subset, note=note)
