"""Write a part of the data that was read: the same rows, as they are stored, in the same containers.

    from vfl.data import read
    from vfl.data.writing import flags, write_part

    write_part("llava.json", flags(read("llava.json"), iter(uids)), Path("subset/data"))

Rows are copied, not made anew from samples: columns that nobody reads stay, and so do a parquet file's column types and
a tar archive's other files. Memory does not grow with the data.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vfl.data import hf, jsonarray, jsonl
from vfl.data.formats import Container, Source, sources
from vfl.data.packed import repacked, unpacked
from vfl.data.sample import BadRow, Sample
from vfl.data.writearrow import write_dataset, write_parquet
from vfl.data.writetar import write_tar
from vfl.errors import InputError
from vfl.io.atomic import replacing

Keep = Iterator[bool]
"""Whether to keep each stored row, in order; exactly one entry a row, bad rows included."""


def flags(
    rows: Iterable[Sample | BadRow], uids: Iterator[str], kept: Callable[[Sample], None] | None = None
) -> Iterator[bool]:
    """For each row whether its uid is wanted.

    Args:
        rows: all of the data, as `read` gives it.
        uids: the wanted uids in the order of the data.
        kept: called with each wanted sample.

    Raises:
        InputError: a wanted row is not among the rows, not in this order, or cannot be used: this is other data.
    """
    wanted = next(uids, None)
    for row in rows:
        keep = row.uid == wanted
        if keep and isinstance(row, BadRow):
            raise InputError(f"{row.where} was chosen and cannot be used now: {row.reason}")
        if keep and kept is not None and isinstance(row, Sample):
            kept(row)
        yield keep
        if keep:
            wanted = next(uids, None)
    if wanted is not None:
        raise InputError(
            f"the row {wanted} is not in the data, or stands elsewhere in it; expected the data that was scored, read"
            " with the same settings"
        )


def write_part(source: Any, keep: Keep, out: Path, *, split: str | None = None) -> list[Path]:
    """Write the kept rows of `source` (all that `read` takes) to the folder `out`; the files or folders written.

    Every file keeps its name; one of which no row is kept is left out. A saved dataset goes to `out` itself where it is
    the only source. If anything is raised, nothing is left.

    Raises:
        InputError: a file stops being readable, or `keep` raises it.
    """
    data_sources = list(source) if isinstance(source, Sequence) and not isinstance(source, str) else [source]
    parts = [(data_source, part) for data_source in data_sources for part in sources(data_source, split)]
    names = _names([part for _, part in parts])
    written: list[Path] = []
    try:
        for (data_source, part), name in zip(parts, names, strict=True):
            target = out if part.container == "hf" and len(parts) == 1 else out / name
            if _write(data_source, part, keep, target, split):
                written.append(target)
        if next(keep, None) is not None:  # this also lets `keep` see that no row is missing
            raise InputError("the data has changed while it was read; write again")
    except BaseException:
        for target in written:
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        raise
    return written


def _write(source: Any, part: Source, keep: Keep, target: Path, split: str | None) -> int:
    """Write one part's kept rows to `target`, unless there are none; how many there are."""
    if part.container == "hf":
        return write_dataset(source if hf.is_dataset(source) else hf.load(Path(source), split), keep, target)
    assert part.path is not None
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary:
        count = WRITERS[part.container](part.path, keep, temporary)
    if not count:
        target.unlink()
    return count


def write_json(path: Path, keep: Keep, out: Path) -> int:
    """The kept rows of a .json file, each with the text it has there, a row a line in the same frame; how many."""
    count = 0
    start, between, end = _frame(path)
    with repacked(path, out) as handle:
        handle.write(start)
        for _, text in jsonarray.entries(path):
            if next(keep):
                handle.write((between if count else b"\n" if start.strip(BOM) else b"") + text.encode())
                count += 1
        handle.write(end)
    return count


def _frame(path: Path) -> tuple[bytes, bytes, bytes]:
    """What stands before, between and after the rows of a .json file."""
    with unpacked(path) as handle:
        head = handle.read(4 * jsonarray.HEAD)
    bom = BOM if head.startswith(BOM) else b""
    text = head.removeprefix(bom).lstrip()
    if text.startswith(b"["):
        return bom + b"[", b",\n", b"\n]\n"
    wrapped = jsonarray.WRAPPED.match(text.decode("utf-8", "replace"))
    return (bom + wrapped[0].encode(), b",\n", b"\n]}\n") if wrapped else (bom, b"\n", b"\n")


def write_jsonl(path: Path, keep: Keep, out: Path) -> int:
    """The kept lines as they are, ends included, and the file's mark of UTF-8 if it has one; how many there are."""
    count = 0
    with repacked(path, out) as handle:
        for number, line in enumerate(jsonl.lines(path)):
            if number == 0 and line.startswith(BOM):
                handle.write(BOM)
                line = line.removeprefix(BOM)
            if line.strip() and next(keep):
                handle.write(line)
                count += 1
    return count


BOM = b"\xef\xbb\xbf"
WRITERS: dict[Container, Callable[[Path, Keep, Path], int]] = {
    "json": write_json,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
    "webdataset": write_tar,
}


def _names(parts: Sequence[Source]) -> list[str]:
    """The parts' own names; with a number before those of which there are several."""
    names = [part.name for part in parts]
    return [f"{number}-{name}" if names.count(name) > 1 else name for number, name in enumerate(names)]
