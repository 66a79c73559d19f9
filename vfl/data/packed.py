"""Text files that may be packed with gzip or zstandard, read and written alike."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from vfl.data.hashing import Hashes
from vfl.errors import InputError

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


def packing(path: Path) -> bytes:
    """How a file is packed: GZIP, ZSTD, or b"" where it is not."""
    with path.open("rb") as handle:
        head = handle.read(4)
    return next((magic for magic in (GZIP, ZSTD) if head.startswith(magic)), b"")


@contextmanager
def unpacked(path: Path, hashes: Hashes | None = None) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked; hashed as they are read where `hashes` is given.

    Raises:
        InputError: it is cut off or damaged.
    """
    kind = packing(path)
    try:
        with path.open("rb") if hashes is None else hashes.open(path) as packed:
            if kind == ZSTD:
                with pa.CompressedInputStream(pa.PythonFile(packed, "r"), "zstd") as stream:
                    yield cast("BinaryIO", io.BufferedReader(cast("io.RawIOBase", stream), 2**18))
            elif kind == GZIP:
                with gzip.GzipFile(fileobj=packed) as handle:
                    yield cast("BinaryIO", handle)
            else:
                yield packed
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read to its end ({error}); it is damaged or cut off") from error


def unpacked_head(path: Path, size: int) -> bytes:
    """The first bytes, unpacked, up to where the file is damaged; InputError where there are none."""
    head = b""
    try:
        with unpacked(path) as handle:
            while len(head) < size and (piece := handle.read1(2**12)):  # type: ignore[attr-defined]
                head += piece
    except InputError:
        if not head:
            raise
    return head


@contextmanager
def repacked(like: Path, out: Path) -> Iterator[BinaryIO]:
    """A file to write, packed as `like` is."""
    kind = packing(like)
    if kind == ZSTD:
        with pa.CompressedOutputStream(pa.OSFile(str(out), "wb"), "zstd") as stream:
            yield cast("BinaryIO", stream)
    elif kind == GZIP:  # without a name and a time in its head, the same rows give the same bytes
        with out.open("wb") as plain, gzip.GzipFile(filename="", fileobj=plain, mode="wb", mtime=0) as handle:
            yield cast("BinaryIO", handle)
    else:
        with out.open("wb") as handle:
            yield handle
