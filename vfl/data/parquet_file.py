"""A parquet file of this machine or of the hub: opened, known by its size and time, its columns measured."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vfl.io.hub import HTTPError, is_address
from vfl.io.hub_in_place import open_at

UNREADABLE = (pa.ArrowException, OSError, ValueError, HTTPError)
"""What reading a parquet file raises, and pa.ArrowMemoryError, which says nothing of the file;
ValueError: names or texts that are not UTF-8."""


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


def holds_bytes(leaf: pq.ColumnSchema) -> bool:
    """Whether a leaf holds plain bytes, of equal lengths or not: no texts, numbers or names."""
    return leaf.logical_type.type == "NONE" and leaf.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")


def sizes_of(metadata: pq.FileMetaData, group: int) -> dict[str, int]:
    """Bytes of each column of a row group, unpacked."""
    facts = metadata.row_group(group)
    return {
        name: sum(facts.column(number).total_uncompressed_size for number in leaves)
        for name, leaves in leaves_of(metadata).items()
    }


def leaves_of(metadata: pq.FileMetaData) -> dict[str, range]:
    """The leaves of each column, by their numbers: their paths don't tell whether a dot is part of a name."""
    leaves: dict[str, range] = {}
    first = 0
    for field in metadata.schema.to_arrow_schema():
        after = first + _count(field.type)
        leaves.setdefault(field.name, range(first, after))
        first = after
    assert first == len(metadata.schema)
    return leaves


def _count(kind: pa.DataType) -> int:
    """How many leaves a type has."""
    if isinstance(kind, pa.BaseExtensionType):
        return _count(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return 1
    return sum(_count(kind.field(n).type) for n in range(kind.num_fields)) if kind.num_fields else 1
