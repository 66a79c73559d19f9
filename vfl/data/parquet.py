"""Parquet, with images embedded or named: a few rows in memory at a time, however large the row groups."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vfl.data.arrowrows import BATCH, batch_rows
from vfl.data.cell import StoredRow
from vfl.data.conversation import IMAGE_COLUMNS
from vfl.data.hashing import HashedFile, Hashes
from vfl.data.parquet_file import UNREADABLE, holds_bytes, opened, sizes_of, stamp_of
from vfl.data.rawrow import RawRow, Start
from vfl.errors import InputError
from vfl.io.hub import is_address, named

BUFFER = 2**16
"""Bytes read at a time from a column; without it, a row group's columns are read whole."""
ID_BATCH = 512


def rows(
    path: Path,
    *,
    only_ids: bool = False,
    only_texts: bool = False,
    start: Start | None = None,
    hashes: Hashes | None = None,
) -> Iterator[RawRow]:
    """The rows of a .parquet file from `start` on.

    With `only_ids` they hold no other column than the id; with `only_texts` all, but nothing of bytes is in them: a
    page of images may be as large as their row group, and is read as a whole.

    Row groups before `start` are not read. With `hashes` each row group is read whole and once, in the order of the
    file's bytes; one of more than `hashing.MOST_KEPT` bytes is read twice, in little memory.

    Raises:
        InputError: the file is no intact parquet.
    """
    number = begin = start.at if start else 0
    try:
        stamp = stamp_of(path)
        with (
            nullcontext(path) if hashes is None else hashes.open_any_order(path) as source,
            opened(source, buffer_size=BUFFER) as file,
        ):
            columns = _text_columns(file) if only_texts else None
            if only_ids:
                columns = [name for name in file.schema_arrow.names if name == "id"]
                if not columns:
                    return  # no row has an id
            size = ID_BATCH if only_ids else BATCH
            groups, number = _groups(file, begin)
            for group, inside, batch in _batches(file, groups, size, columns, source):
                before = min(max(begin - number, 0), batch.num_rows)
                number += before
                sizes = sizes_of(file.metadata, group)
                for at, row in enumerate(batch_rows(batch.slice(before)), start=inside + before):
                    place = Start(number, number + 1)
                    stored = StoredRow(path, stamp, group, at, sizes)
                    number += 1
                    where = f"{path.name} row {number}"
                    if isinstance(row, InputError):
                        yield RawRow(where, None, problem=str(row), start=place)
                    elif only_texts:
                        yield RawRow(where, {name: row.get(name) for name in file.schema_arrow.names}, start=place)
                    else:
                        yield RawRow(where, row, start=place, stored_row=stored)
    except pa.ArrowMemoryError:
        raise
    except UNREADABLE as error:
        what = "cannot be read from the hub" if is_address(path) else "is no intact parquet file"
        raise InputError(f"{named(path)} {what} (after row {number}: {' '.join(str(error).split())[:200]})") from error


def _text_columns(file: pq.ParquetFile) -> list[str]:
    """The columns, and parts of columns, that are no bytes, or may be turns."""
    leaves = [file.schema.column(n) for n in range(len(file.schema))]
    return [leaf.path for leaf in leaves if not holds_bytes(leaf) or leaf.path.split(".")[0] not in IMAGE_COLUMNS]


def _batches(
    file: pq.ParquetFile, groups: list[int], size: int, columns: list[str] | None, source: Path | HashedFile
) -> Iterator[tuple[int, int, pa.RecordBatch]]:
    """Batches, each with its row group and how many of that one's rows are before it."""
    for group in groups:
        inside = 0
        if isinstance(source, HashedFile):
            source.keep(*_span(file.metadata.row_group(group)))
        for batch in file.iter_batches(batch_size=size, columns=columns, use_threads=False, row_groups=[group]):
            yield group, inside, batch
            inside += batch.num_rows


def _span(group: pq.RowGroupMetaData) -> tuple[int, int]:
    """Where a row group's bytes begin and end in the file."""
    columns = [group.column(n) for n in range(group.num_columns)]
    starts = [min(column.data_page_offset, column.dictionary_page_offset or 2**63) for column in columns]
    ends = [start + column.total_compressed_size for start, column in zip(starts, columns, strict=True)]
    return min(starts, default=0), max(ends, default=0)


def _groups(file: pq.ParquetFile, begin: int) -> tuple[list[int], int]:
    """The row groups from the one with row `begin` on, and how many rows are before them."""
    before = 0
    for group in range(file.metadata.num_row_groups):
        rows_here = file.metadata.row_group(group).num_rows
        if before + rows_here > begin:
            return list(range(group, file.metadata.num_row_groups)), before
        before += rows_here
    return [], before
