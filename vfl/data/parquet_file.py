"""A parquet file of this machine or of the hub: opened, known by its size and time, its columns measured."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vfl.io.hub import HTTPError, is_address
from vfl.io.hub_in_place import open_at

UNREADABLE = (pa.ArrowException, OSError, ValueError, HTTPError)
"""What reading a parquet file raises; ValueError: names or texts that are not UTF-8."""


def stamp_of(path: Path) -> str:
    """Size and time of a file; of an address nothing, since its commit says all.

    Raises:
        OSError: it can't be looked at.
    """
    if is_address(path):
        return ""
    status = os.stat(path)
    return f"{status.st_size} {status.st_mtime_ns}"


def opened(path: Any, **how: Any) -> pq.ParquetFile:
    """A parquet file of this machine or of the hub, to be closed; of the hub's, column chunks come in a piece each."""
    if is_address(path):
        return pq.ParquetFile(open_at(path), **{**how, "buffer_size": 0}, pre_buffer=False)
    return pq.ParquetFile(path, pre_buffer=False, **how)


def sizes_of(file: pq.ParquetFile, group: int) -> dict[str, int]:
    """Bytes of each column of a row group, unpacked."""
    facts = file.metadata.row_group(group)
    leaves = [facts.column(number) for number in range(facts.num_columns)]
    return {
        name: sum(leaf.total_uncompressed_size for leaf in leaves if is_part(leaf.path_in_schema, name))
        for name in file.schema_arrow.names
    }


def is_part(leaf: str, column: str) -> bool:
    """Whether a leaf is the column, or a field of it."""
    return leaf == column or leaf.startswith(f"{column}.")
