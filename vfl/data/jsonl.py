"""JSON lines: one object a line; blank lines are passed over. A broken line is one bad row."""

from collections.abc import Iterator
from pathlib import Path

from vfl.data.packed import unpacked
from vfl.data.rawrow import RawRow, parse_row


def rows(path: Path) -> Iterator[RawRow]:
    """The rows of a .jsonl file, one line in memory at a time."""
    for number, line in enumerate(lines(path), start=1):
        if line.strip():
            yield parse_row(f"{path.name} line {number}", line.rstrip(b"\r\n"))


def lines(path: Path) -> Iterator[bytes]:
    """Every line with its end."""
    with unpacked(path) as handle:
        yield from handle
