"""Where each row of the data begins, and its uid: the first reading writes it, so that processes read their own rows.

A uid says how often an id or a content came before, and whether an id comes again: only who has read all can know. So
the first reading notes what names are made from, and the names are given afterwards, from the notes. The index is
removed when the run ends. Of what is packed as a whole (archives and lines behind gzip or zstandard), reading begins at
the file's beginning.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vfl.data import BadRow, Sample
from vfl.data.hashing import Hashes
from vfl.data.rawrow import Start
from vfl.data.reading import Data
from vfl.data.sample import Place
from vfl.data.uids import Namer, Unnamed
from vfl.errors import InputError
from vfl.io.atomic import replacing

logger = logging.getLogger(__name__)

INDEX = "rows.parquet"
SOURCES = b"vfl_sources"
CHUNK = 4096
_PLACE = [("part", pa.int32()), ("at", pa.int64()), ("number", pa.int64()), ("skip", pa.int64())]
SCHEMA = pa.schema([("uid", pa.string()), *_PLACE])
_NOTES = pa.schema([("id", pa.string()), ("content", pa.binary(16)), *_PLACE])


class RowIndex:
    """An index that was written. `sources` are the hashes of the data that it is of."""

    def __init__(self, path: Path) -> None:
        self.file = pq.ParquetFile(path)
        self.rows = self.file.metadata.num_rows
        self.sources = (self.file.metadata.metadata or {}).get(SOURCES, b"").decode()

    def start(self, first: int) -> tuple[Place, Iterator[str]]:
        """Where reading begins to come to row `first`, and the uids from it on."""
        chunk, before = divmod(first, CHUNK)
        row = self.file.read_row_group(chunk).slice(before, 1).to_pylist()[0]
        start = None if row["at"] is None else Start(row["at"], row["number"])
        return Place(row["part"], start, row["skip"]), islice(self._uids(chunk), before, None)

    def _uids(self, chunk: int) -> Iterator[str]:
        for group in range(chunk, self.file.metadata.num_row_groups):
            yield from self.file.read_row_group(group, columns=["uid"])["uid"].to_pylist()


def open_index(path: Path, rows: int, sources: list[str]) -> RowIndex | None:
    """The index in a folder; None where there is none of this data, or it can't be read."""
    try:
        index = RowIndex(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, pa.ArrowException) as error:
        logger.warning("%s can't be read (%s): rows are read from the beginning", path, error)
        return None
    same = (index.rows, index.sources) == (rows, " ".join(sources))
    return index if same and index.file.schema_arrow.names == SCHEMA.names else None


def write_index(
    path: Path,
    data: Data,
    hashes: Hashes,
    sources: Callable[[], list[str]],
    on_row: Callable[[Sample | BadRow], None] = lambda row: None,
) -> int:
    """Read the data once, as far as its containers allow, and write its index; how many rows there are.

    Args:
        path: of the index.
        data: is read to its end: a broken file is found before anything is scored.
        hashes: is fed with its files as they are read.
        sources: the hashes of the data, asked for when it was read.
        on_row: told each row; the names that it has then are not its uids.

    Raises:
        InputError: there is no row, or of reading.
    """
    names = Unnamed()
    with replacing(path) as temporary:
        notes = temporary.with_name(f".notes{temporary.name}")
        try:
            rows = _write(notes, _NOTES, _noted(data, hashes, names, on_row))
            if not rows:
                raise InputError("The data holds no rows.")
            _write(temporary, SCHEMA, _named(notes, names.namer()), {SOURCES: " ".join(sources())})
        finally:
            notes.unlink(missing_ok=True)
    return rows


def _noted(
    data: Data, hashes: Hashes, names: Unnamed, on_row: Callable[[Sample | BadRow], None]
) -> Iterator[tuple[Any, ...]]:
    for row in data.rows(names, hashes):
        on_row(row)
        assert row.place is not None
        start = row.place.start
        at, number = (None, None) if start is None else (start.at, start.number)
        yield names.own_id, names.content, row.place.part, at, number, row.place.skip


def _named(notes: Path, namer: Namer) -> Iterator[tuple[Any, ...]]:
    with pq.ParquetFile(notes) as file:
        for batch in file.iter_batches(CHUNK):
            for own_id, content, *place in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield namer.name(own_id, content), *place


def _write(
    path: Path, schema: pa.Schema, rows: Iterable[tuple[Any, ...]], facts: dict[bytes, str] | None = None
) -> int:
    """Write rows in groups of CHUNK; how many there are."""
    count, left = 0, iter(rows)
    with pq.ParquetWriter(path, schema) as writer:
        while chunk := list(islice(left, CHUNK)):
            columns = zip(*chunk, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_table(pa.table(arrays, schema))
            count += len(chunk)
        writer.add_key_value_metadata(facts or {})
    return count
