"""JSON lines: one object a line; blank lines are passed over. A broken line is one bad row."""

from collections.abc import Iterator
from pathlib import Path

from vfl.data.hashing import Hashes
from vfl.data.packed import packing, unpacked
from vfl.data.rawrow import RawRow, Start, parse_row


def rows(path: Path, start: Start | None = None, hashes: Hashes | None = None) -> Iterator[RawRow]:
    """The rows of a .jsonl file from `start` on, one line in memory at a time."""
    at, first = (start.at, start.number) if start else (0, 1)
    seekable = not packing(path)
    for number, line in enumerate(lines(path, at, hashes), start=first):
        if line.strip():
            begin = Start(at, number) if seekable else None
            yield parse_row(f"{path.name} line {number}", line.rstrip(b"\r\n"), start=begin)
        at += len(line)


def lines(path: Path, at: int = 0, hashes: Hashes | None = None) -> Iterator[bytes]:
    """Every line with its end, from byte `at` on."""
    with unpacked(path, hashes) as handle:
        if at:
            handle.seek(at)
        yield from handle
