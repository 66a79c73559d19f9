"""Where each row of the data begins, and its uid: the first reading writes it, so that processes read their own rows.

A uid says how often an id or a content came before, which only who has read all that is before can know. The index is
removed when the run ends. Containers in which reading can't begin anywhere (archives, packed files) have none: there
each process reads from the beginning.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vfl.data import BadRow, Sample
from vfl.data.rawrow import Start
from vfl.data.sample import Place
from vfl.io.atomic import replacing

logger = logging.getLogger(__name__)

INDEX = "rows.parquet"
SOURCES = b"vfl_sources"
CHUNK = 4096
SCHEMA = pa.schema([("uid", pa.string()), ("part", pa.int32()), ("at", pa.int64()), ("number", pa.int64())])
Rows = Iterator[Sample | BadRow]


class RowIndex:
    """An index that was written. `sources` are the hashes of the data that it is of."""

    def __init__(self, path: Path) -> None:
        self.file = pq.ParquetFile(path)
        self.rows = self.file.metadata.num_rows
        self.sources = (self.file.metadata.metadata or {}).get(SOURCES, b"").decode()

    def start(self, first: int) -> tuple[Place, Iterator[str]]:
        """Where row `first` begins, and the uids from it on."""
        chunk, before = divmod(first, CHUNK)
        row = self.file.read_row_group(chunk).slice(before, 1).to_pylist()[0]
        return Place(row["part"], Start(row["at"], row["number"])), islice(self._uids(chunk), before, None)

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
    return index if (index.rows, index.sources) == (rows, " ".join(sources)) else None


@contextmanager
def indexing(path: Path, rows: Rows, sources: Callable[[], list[str]]) -> Iterator[Rows]:
    """The same rows; when all were taken, their index is at `path`, unless there is a row where reading can't begin.

    Args:
        sources: hashes of the data, asked for at the end.
    """
    missing: list[bool] = []
    with replacing(path) as temporary, pq.ParquetWriter(temporary, SCHEMA) as writer:
        yield _written(rows, writer, missing)
        writer.add_key_value_metadata({SOURCES: " ".join(sources())})
    if missing:
        path.unlink()


def _written(rows: Rows, writer: pq.ParquetWriter, missing: list[bool]) -> Rows:
    waiting: list[tuple[str, int, int, int]] = []
    for row in rows:
        if row.place is None:
            missing[:] = [True]
        elif not missing:
            waiting.append((row.uid, row.place.part, row.place.start.at, row.place.start.number))
        if len(waiting) == CHUNK:
            writer.write_table(_table(waiting))
            waiting = []
        yield row
    if waiting:
        writer.write_table(_table(waiting))


def _table(rows: list[tuple[str, int, int, int]]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA)
