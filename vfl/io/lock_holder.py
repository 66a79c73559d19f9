"""Lock files: taken where nobody who lives holds them, and who holds them, in words."""

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

import psutil
from filelock import SoftFileLock, Timeout

from vfl.io.disk import try_to_write

AT_ONCE, UNSURE = 0.5, 5.0
"""Seconds for a lock whose holder lives, and for one whose holder does not, or can't be read: a process that was killed
while it took a dead one's lock over leaves what is seen to stand still for two seconds before it is taken over, too."""

NOBODY = 2**31 - 1
"""A process number above all that systems give."""


def take(lock: SoftFileLock) -> bool:
    """Take a lock, unless a process that may live holds it; whether it was taken.

    Raises:
        OSError: nothing can be written beside it.
    """
    file = Path(lock.lock_file)
    for seconds in (AT_ONCE, UNSURE, AT_ONCE):
        before = _if_empty(file)
        try:
            lock.acquire(timeout=seconds, poll_interval=0.1)
        except Timeout:
            if _may_live(file):
                return False
            try_to_write(file)  # on a full disk, the lock of a dead process can't be taken over
            if seconds == UNSURE and before is not None:
                _disown(file, before)
        else:
            for left in file.parent.iterdir():
                if left.name.startswith(f"{file.name}.break."):
                    with suppress(FileNotFoundError):
                        left.unlink()
            return True
    return False


def _if_empty(file: Path) -> tuple[int, int] | None:
    """What tells an empty lock file from any other: its inode, and when that changed."""
    with suppress(OSError):
        status = file.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_size == 0:
            return status.st_ino, status.st_ctime_ns
    return None


def _disown(file: Path, before: tuple[int, int]) -> None:
    """Name a process that can't live in a lock file that has stood empty, so that it is taken over like a dead one's.

    A process killed between making its lock and writing into it leaves that empty. One that lives there has it open,
    and nobody else ever opens it to write. Of several that come here each writes the same into the same file, and all
    but one then lose the exchange by which `filelock` takes a dead process's lock over.

    Args:
        before: the empty file, as `_if_empty` had it seconds ago.
    """
    if _is_open(file):
        return
    with suppress(PermissionError, FileNotFoundError), file.open("rb+", buffering=0) as handle:
        status = os.fstat(handle.fileno())
        if (status.st_ino, status.st_ctime_ns) == before and status.st_size == 0:
            handle.write(f"{NOBODY}\n{socket.gethostname()}\n".encode())


def _is_open(file: Path) -> bool:
    """Whether a process of this machine has it open; those of other users, whose locks can't be written, don't say."""
    path = str(file.resolve())
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(opened.path == path for opened in process.open_files()):
                return True
    return False


def _may_live(file: Path) -> bool:
    """Whether the process that a lock file names is one of another machine, or lives."""
    try:
        process, host, *_ = file.read_text(encoding="utf-8").splitlines()
        number = int(process)
        return host != socket.gethostname() or psutil.pid_exists(number)
    except (OSError, ValueError):
        return False


def holder(file: Path) -> str:
    """The process, from the number and the machine that its file begins with."""
    try:
        process, host, *_ = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, ValueError):  # just given back, or not written yet
        return "another process"
    return f"process {process} on {host}"
