"""Pictures inside parquet files, read where they lie: of a cell, its row group's column is decoded once for all rows.

What was decoded is kept, up to `MOST_KEPT` bytes in each process, and what was used longest ago is let go. So rows near
to each other cost one reading of their row group. Files are opened by the process that reads them, for each reading.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vfl.data.parquet_file import UNREADABLE, holds_bytes, leaves_of, opened, stamp_of
from vfl.errors import InputError
from vfl.io.hub import is_address, named

MOST_KEPT = 2**29
"""Bytes of decoded columns in a process; no row group's pictures may be more."""
Keys = tuple[str | int, ...]


class ContainerError(InputError):
    """What is wrong with a file that rows' pictures lie in, and so with no row of it: it may be otherwise soon."""


@dataclass(frozen=True)
class StoredRow:
    """Where a row lies in a parquet file.

    Attributes:
        path: of the file, or its address on the hub with a commit.
        stamp: `stamp_of` the file when it was read.
        group: its row group, from 0.
        row: its number there, from 0.
        sizes: bytes of each column of the row group, unpacked.
    """

    path: Path
    stamp: str
    group: int
    row: int
    sizes: Mapping[str, int]

    def cell(self, row: Mapping[str, Any], data: bytes) -> "Cell | None":
        """The cell that holds these bytes, which are an object of this row; None where they were made of others."""
        keys = _keys_of(row, data)
        if not keys:
            return None
        return Cell(self.path, self.stamp, self.group, self.row, keys, self.sizes.get(str(keys[0]), 0))


@dataclass(frozen=True)
class Cell:
    """Bytes inside a row of a parquet file: see `StoredRow`.

    Attributes:
        keys: from the row to the bytes: a column, then fields and places in lists.
        size: bytes of the column in its row group, unpacked.
    """

    path: Path
    stamp: str
    group: int
    row: int
    keys: Keys
    size: int

    def read(self) -> bytes:
        """The bytes.

        Raises:
            ContainerError: the file is gone, has changed, or holds something else there.
        """
        column = _chunks().column(self)
        value = _inside(column[self.row], self.keys[1:]) if self.row < len(column) else None
        if not isinstance(value, bytes):
            raise ContainerError(f"{self} holds no picture any more; start again, so that its rows are read anew")
        return value

    def __str__(self) -> str:
        return f"column {self.keys[0]!r} of row {self.row + 1} in row group {self.group + 1} of {named(self.path)}"


class Chunks:
    """Decoded columns of row groups, those used last, at most `most` bytes.

    Attributes:
        readings: how many were decoded so far.
    """

    def __init__(self, most: int) -> None:
        self.most, self.readings = most, 0
        self._kept: OrderedDict[tuple[str, str, int, str | int], pa.ChunkedArray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def column(self, cell: Cell) -> pa.ChunkedArray:
        """The column of a cell's row group."""
        key = (str(cell.path), cell.stamp, cell.group, cell.keys[0])
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            else:
                # room is made before, so that there is never more than the most and one more
                self._let_go(max(self.most - cell.size, 0))
                column = _decoded(cell)
                self.readings += 1
                self._kept[key] = column
                self._bytes += column.nbytes
                self._let_go(max(self.most, column.nbytes))
            return self._kept[key]

    def _let_go(self, most: int) -> None:
        while self._bytes > most and self._kept:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes


_of_process: dict[int, Chunks] = {}


def _chunks() -> Chunks:
    """Those of this process; a fork begins with none, and with a lock of its own."""
    process = os.getpid()
    if process not in _of_process:
        _of_process.clear()
        _of_process[process] = Chunks(MOST_KEPT)
    return _of_process[process]


def _decoded(cell: Cell) -> pa.ChunkedArray:
    column = str(cell.keys[0])
    try:
        if stamp_of(cell.path) != cell.stamp:
            raise ContainerError(
                f"{named(cell.path)} was changed since its rows were prepared; start again, so that they are read anew"
            )
        footer = _footer(cell.path, cell.stamp)
        held = _of_bytes(footer, column)
        if cell.group >= footer.num_row_groups or not held:
            raise ContainerError(f"{cell} is not there any more; start again, so that its rows are read anew")
        # Kept by dictionaries, a picture that many rows show is held once.
        with opened(cell.path, metadata=footer, read_dictionary=held) as file:
            table = file.read_row_group(cell.group, columns=held, use_threads=False)
            # another column may have a leaf of the same path
            return table.column(table.column_names.index(column))
    except (ContainerError, pa.ArrowMemoryError):
        raise
    except FileNotFoundError as error:
        raise ContainerError(
            f"{named(cell.path)} is not there any more, and pictures are read from it (data.streaming); put it back, "
            "and start again or --resume"
        ) from error
    except UNREADABLE as error:
        then = "Is the hub within reach? Then" if is_address(cell.path) else "Put the file back whole, then"
        raise ContainerError(
            f"{cell} cannot be read ({' '.join(str(error).split())[:200]}). {then} start again, or --resume"
        ) from error


def _of_bytes(footer: pq.FileMetaData, column: str) -> list[str]:
    """Paths of a column's leaves that hold bytes, not texts such as the name beside them."""
    leaves = [footer.schema.column(number) for number in leaves_of(footer).get(column, ())]
    return [leaf.path for leaf in leaves if holds_bytes(leaf)]


@lru_cache(maxsize=256)
def _footer(path: Path, stamp: str) -> pq.FileMetaData:
    """What a file says of its row groups, as long as it has this stamp."""
    with opened(path) as file:
        return file.metadata


def _inside(value: Any, keys: Keys) -> Any:
    """What lies in an Arrow scalar, converted alone: a list of many pictures is not copied for one."""
    for key in keys:
        if isinstance(value, pa.ExtensionScalar):
            value = value.value
        if not value.is_valid:
            return None
        if isinstance(key, str):
            if not isinstance(value, pa.StructScalar) or value.type.get_field_index(key) < 0:
                return None
            value = value[key]
        else:
            items = getattr(value, "values", None)  # of any kind of list
            if items is None or key >= len(items):
                return None
            value = items[key]
    return value.as_py()


def _keys_of(value: Any, data: bytes) -> Keys | None:
    """From a value to this very object inside it."""
    if value is data:
        return ()
    items: Any = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if (rest := _keys_of(inner, data)) is not None:
            return (key, *rest)
    return None
