"""The numbers of a figure as a CSV file that lies in the page itself, in a link's address: no script, no server."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from vfl.report.scales import Number, finite
from vfl.report.words import SHARE

Cell = str | Number
LONGEST_FILE = 60  # characters of a file's name
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # with these a spreadsheet begins to compute
PLAIN_IN_ADDRESS = " /:,;()=+@!$'*[]?^|{}"


@dataclass(frozen=True)
class Sheet:
    """What a figure shows; numbers in full, empty cells (None) where nothing is drawn. Headings end in the unit."""

    title: str
    headings: list[str]
    rows: list[list[Cell]]

    @property
    def name(self) -> str:
        """Of its file, without the ending."""
        return "-".join(re.findall(r"[a-z0-9]+", self.title.lower()))[:LONGEST_FILE].strip("-") or "figure"

    def of(self, whole: str) -> "Sheet":
        """The same under a name that tells it from those of other parts of the page."""
        return replace(self, title=f"{whole} {self.title}")

    @property
    def csv(self) -> str:
        """As RFC 4180 has it. Names come from data: one that a spreadsheet would compute gets an apostrophe."""
        written = io.StringIO()
        csv.writer(written, lineterminator="\r\n").writerows([_cell(cell) for cell in row] for row in self._lines())
        return written.getvalue()

    @property
    def address(self) -> str:
        """For a link that saves the file."""
        return "data:text/csv;charset=utf-8," + quote(self.csv, safe=PLAIN_IN_ADDRESS).replace(" ", "%20")

    def _lines(self) -> Iterator[Sequence[Cell]]:
        yield self.headings
        yield from self.rows


def with_unit(name: str, unit: str) -> str:
    """A column's heading; shares stay shares, 0 to 1, though the charts show them in per cent."""
    unit = "share" if unit == SHARE else unit
    return f"{name} ({unit})" if unit else name


def by_place(
    title: str,
    axis: str,
    columns: Sequence[tuple[str, Sequence[float], Sequence[Number]]],
    names: Sequence[str] | None = None,
) -> Sheet:
    """Curves over one axis as columns, a row a place.

    Args:
        title: of the figure.
        axis: heading of the places.
        columns: (heading, places, values); places that a column lacks are empty cells.
        names: instead of the places of the first column, where the axis is no number.
    """
    numbered = [dict(zip(_numbered(at), values, strict=True)) for _, at, values in columns]
    places = sorted({place for column in numbered for place in column})
    name_of = dict(zip(_numbered(columns[0][1]), names, strict=True)) if names else {}
    rows: list[list[Cell]] = [
        [name_of.get(place, place[0]), *(column.get(place) for column in numbered)] for place in places
    ]
    return Sheet(title, [axis, *(heading for heading, _, _ in columns)], rows)


def _numbered(at: Sequence[float]) -> list[tuple[float, int]]:
    """Places told apart where one comes twice, as the steps of a run that was resumed do."""
    seen: Counter[float] = Counter()
    numbered = []
    for place in at:
        numbered.append((place, seen[place]))
        seen[place] += 1
    return numbered


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return f"'{cell}" if cell.startswith(FORMULA) else cell
    return repr(cell) if finite(cell) else ""
