"""Files that are hashed while they are read: to say which data it is then costs no reading of its own."""

import io
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, cast

from vfl.errors import InputError

PIECE = 2**22
MOST_KEPT = 2**28
"""Bytes of a file that are in memory at a time, at most: of a row group, which is read in another order than hashed."""


class Hashes:
    """The SHA-256 of files, each fed by who reads it through `open` or `open_any_order`.

    Args:
        on_bytes: told how many bytes were hashed, piece by piece.
    """

    def __init__(self, on_bytes: Callable[[int], object] = lambda count: None) -> None:
        self.on_bytes = on_bytes
        self._states: dict[Path, _State] = {}

    def open(self, path: Path) -> BinaryIO:
        """The file to be read from its beginning on; what is passed over is read for the hash."""
        raw = HashedFile(path, self._state(path), in_order=True)
        return cast("BinaryIO", io.BufferedReader(raw, 2**20))

    def open_any_order(self, path: Path) -> "HashedFile":
        """The file to be read in any order: hashed are the spans that `HashedFile.keep` is asked to keep."""
        return HashedFile(path, self._state(path), in_order=False)

    def of(self, path: Path) -> str:
        """A file's SHA-256 as hex digits. What nobody has read is read now.

        Raises:
            InputError: the file can't be read, or its size changed meanwhile.
        """
        state = self._state(path)
        try:
            with HashedFile(path, state, in_order=True) as file:
                size = os.fstat(file.fileno()).st_size
                file.hash_to(size)
        except OSError as error:
            raise InputError(f"the data {path} can't be read: {error.strerror}") from error
        if not state.count == size == state.size:
            raise InputError(f"the data {path} was changed while it was read; run this again when it is complete")
        return state.digest.hexdigest()

    def _state(self, path: Path) -> "_State":
        return self._states.setdefault(path.absolute(), _State(self.on_bytes))


class _State:
    """The first `count` bytes of a file are hashed. It had `size` bytes when it was first opened."""

    def __init__(self, on_bytes: Callable[[int], object]) -> None:
        self.digest, self.count, self.on_bytes = sha256(), 0, on_bytes
        self.size: int | None = None

    def add(self, piece: memoryview | bytes) -> None:
        self.digest.update(piece)
        self.count += len(piece)
        self.on_bytes(len(piece))


class HashedFile(io.RawIOBase):
    """A file whose bytes are hashed, each once, as reading comes to them; see `Hashes`."""

    def __init__(self, path: Path, state: _State, *, in_order: bool) -> None:
        self._raw = path.open("rb", buffering=0)
        self._state, self._in_order = state, in_order
        if state.size is None:
            state.size = os.fstat(self._raw.fileno()).st_size
        self._at = 0
        self._kept, self._kept_from = b"", 0

    def keep(self, start: int, end: int) -> None:
        """Read the bytes from `start` to `end` into memory, for reads to come, unless they are more than MOST_KEPT.

        Spans are to be given in their order; of others, reads come from the file.
        """
        self._kept = b""
        self.hash_to(start)
        if self._state.count == start and end - start <= MOST_KEPT:
            self._raw.seek(start)
            self._kept, self._kept_from = self._raw.read(end - start), start
            self._state.add(self._kept)

    def hash_to(self, end: int) -> None:
        """Hash the bytes before `end` that are not yet, as far as the file goes."""
        self._raw.seek(self._state.count)
        while self._state.count < end and (piece := self._raw.read(min(PIECE, end - self._state.count))):
            self._state.add(piece)

    def readinto(self, buffer: Any) -> int:
        """As of io.RawIOBase; fewer bytes than asked for come at the end of the file alone, as Arrow expects."""
        view, filled = memoryview(buffer).cast("B"), 0
        while filled < len(view) and (count := self._read_some(view[filled:])):
            filled += count
        return filled

    def _read_some(self, view: memoryview) -> int:
        inside = self._at - self._kept_from
        if 0 <= inside < len(self._kept):
            piece = memoryview(self._kept)[inside : inside + len(view)]
            view[: len(piece)] = piece
            count = len(piece)
        else:
            if self._in_order and self._at > self._state.count:
                self.hash_to(self._at)
            self._raw.seek(self._at)
            count = self._raw.readinto(view) or 0
            known = self._state.count - self._at
            if 0 <= known < count:
                self._state.add(view[known:count])
        self._at += count
        return count

    def readable(self) -> bool:
        """As of io.RawIOBase."""
        return True

    def seekable(self) -> bool:
        """As of io.RawIOBase."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of io.RawIOBase."""
        begins = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: os.fstat(self.fileno()).st_size}
        self._at = begins[whence] + offset
        return self._at

    def tell(self) -> int:
        """As of io.RawIOBase."""
        return self._at

    def fileno(self) -> int:
        """As of io.RawIOBase."""
        return self._raw.fileno()

    def close(self) -> None:
        """As of io.RawIOBase."""
        self._kept = b""
        self._raw.close()
        super().close()
