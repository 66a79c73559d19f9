"""How results show themselves in a notebook: one small table, escaped, in the notebook's own style."""

from collections.abc import Iterable, Sequence
from html import escape

ROWS = 60
"""Rows that are shown; a notebook is no place for more."""


def html_table(
    title: str, headings: Sequence[str], rows: Iterable[Sequence[object]], notes: Iterable[object] = ()
) -> str:
    """A table as HTML. Everything is escaped: names, answers and labels were written by others.

    Args:
        title: what it is of.
        headings: of the columns.
        rows: cells; None is shown as a dash.
        notes: lines below it.
    """
    cells = [[escape("–" if cell is None else str(cell)) for cell in row] for row in rows]
    more = [f"and {len(cells) - ROWS} more rows"] if len(cells) > ROWS else []
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in cells[:ROWS])
    below = "".join(f"<div>{escape(str(note))}</div>" for note in [*more, *notes])
    return f"<div><b>{escape(title)}</b><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}</div>"


def percent(share: float) -> str:
    """0.874 -> "87.4 %", with a space that does not break."""
    return f"{100 * share + 0.0:.1f}\u00a0%"


def percent_interval(low: float, high: float) -> str:
    """(0.741, 0.912) -> "74.1–91.2 %"."""
    return f"{100 * low + 0.0:.1f}–{percent(high)}"
