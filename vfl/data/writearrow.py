"""Parquet files and saved datasets, a part of their rows: column types, metadata and stored images as they were."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vfl.data.arrowrows import BATCH
from vfl.data.parquet import BUFFER
from vfl.errors import InputError
from vfl.io.disk import is_full

GROUP_BYTES = 2**25
"""Bytes of a row group, and so what is in memory at a time: rows may hold images."""


def write_parquet(path: Path, keep: Iterator[bool], out: Path) -> int:
    """The kept rows of a parquet file with its schema and compression; how many there are."""
    count = 0
    try:
        with ExitStack() as stack:
            file = stack.enter_context(pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False))
            writer = stack.enter_context(pq.ParquetWriter(out, file.schema_arrow, compression=_compression(file)))
            waiting: list[pa.RecordBatch] = []
            for batch in file.iter_batches(batch_size=BATCH, use_threads=False):
                chosen = batch.filter(pa.array([next(keep) for _ in range(batch.num_rows)], pa.bool_()))
                if chosen.num_rows:
                    waiting.append(chosen)
                    count += chosen.num_rows
                if sum(batch.nbytes for batch in waiting) >= GROUP_BYTES:
                    _write(writer, waiting, file.schema_arrow)
                    waiting = []
            _write(writer, waiting, file.schema_arrow)
    except (pa.ArrowException, OSError) as error:
        if is_full(error):
            raise
        raise InputError(f"{path} cannot be copied ({' '.join(str(error).split())[:200]})") from error
    return count


def select_rows(dataset: Any, keep: Iterator[bool]) -> Any:
    """The kept rows of a `datasets.Dataset`, as one; `keep` is read to its end, where it raises if rows are missing."""
    return dataset.select([number for number, kept in enumerate(keep) if kept])


def write_dataset(dataset: Any, keep: Iterator[bool], out: Path) -> int:
    """Save the kept rows of a `datasets.Dataset` in a folder, as `save_to_disk` does; how many there are."""
    import datasets

    chosen = select_rows(dataset, keep)
    if len(chosen):
        shown = datasets.is_progress_bar_enabled()
        datasets.disable_progress_bars()
        try:
            chosen.save_to_disk(str(out))
        finally:
            if shown:
                datasets.enable_progress_bars()
    return len(chosen)


def _write(writer: pq.ParquetWriter, batches: list[pa.RecordBatch], schema: pa.Schema) -> None:
    if batches:
        table = pa.Table.from_batches(batches, schema)
        writer.write_table(table, row_group_size=table.num_rows)


def _compression(file: pq.ParquetFile) -> str:
    """The compression that the file's first column chunk has; Snappy for a file without rows."""
    meta = file.metadata
    compression = meta.row_group(0).column(0).compression if meta.num_row_groups and meta.num_columns else "SNAPPY"
    return "NONE" if compression == "UNCOMPRESSED" else str(compression)
