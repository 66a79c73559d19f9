"""A disk that is full, or a place where nothing may be written: one paragraph that says where, and what to do."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vfl.errors import InputError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_BARRED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.ENAMETOOLONG}
_FULL_TEXTS = (
    "No space left on device", "Disk quota exceeded", "File too large", "max_temp_directory_size",
    "PytorchStreamWriter failed", "unexpected pos",
)  # fmt: skip
"""What writers say that wrap the system's error in one of their own: Arrow, duckdb, torch."""


@contextmanager
def explained(
    path: Path, *, full: str | Callable[[], str], barred: str = "Give another --out, or the rights to write there."
) -> Iterator[None]:
    """Within it, a lack of room or of rights to write at `path` is an InputError; other errors pass.

    Args:
        path: the folder or file that is written.
        full: what became of the results, and what to do, where the disk is full; or what says it when that happens.
        barred: what to do where nothing may be written.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if is_full(error):
            raise InputError(f"The disk of {path} is full. {full if isinstance(full, str) else full()}") from error
        if isinstance(error, OSError) and is_barred(error, path):
            raise InputError(f"{error.filename} can't be written ({error.strerror}). {barred}") from error
        raise


def try_to_write(beside: Path) -> None:
    """Write a little next to a file, and remove it again.

    Raises:
        OSError: the system's, where the disk is full.
    """
    attempt = beside.with_name(f".{beside.name.lstrip('.')}.{os.getpid()}.tmp")
    try:
        attempt.write_bytes(b"0" * 4096)
    finally:
        attempt.unlink(missing_ok=True)


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk, or this user's part of it, has no room left."""
    return getattr(error, "errno", None) in _FULL or any(text in str(error) for text in _FULL_TEXTS)


def is_barred(error: OSError, path: Path) -> bool:
    """Whether an error says that `path`, something in it, or a folder on the way to it can't be written."""
    if error.errno not in _BARRED or not isinstance(error.filename, str | Path):
        return False
    here, there = Path(error.filename).absolute(), path.absolute()
    beside = here.name.startswith(f".{there.name}.")  # the temporary file that would take its place
    return here == there or there in here.parents or here in there.parents or beside
