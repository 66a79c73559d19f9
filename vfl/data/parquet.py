"""Parquet, with images embedded or named: a few rows in memory at a time, however large the row groups."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vfl.data.arrowrows import BATCH, batch_rows
from vfl.data.rawrow import RawRow
from vfl.errors import InputError

BUFFER = 2**16
"""Bytes read at a time from a column; without it, a row group's columns are read whole."""
ID_BATCH = 512


def rows(path: Path, *, only_ids: bool = False) -> Iterator[RawRow]:
    """The rows of a .parquet file; with `only_ids` they hold no other column than the id.

    Raises:
        InputError: the file is no intact parquet.
    """
    number = 0
    try:
        with pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False) as file:
            columns = [name for name in file.schema_arrow.names if name == "id"] if only_ids else None
            if columns == []:
                return  # no row has an id
            size = ID_BATCH if only_ids else BATCH
            for batch in file.iter_batches(batch_size=size, columns=columns, use_threads=False):
                for row in batch_rows(batch):
                    number += 1
                    where = f"{path.name} row {number}"
                    yield RawRow(where, None, problem=str(row)) if isinstance(row, InputError) else RawRow(where, row)
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: names or texts that are not UTF-8
        raise InputError(
            f"{path} is no intact parquet file (after row {number}: {' '.join(str(error).split())[:200]})"
        ) from error
