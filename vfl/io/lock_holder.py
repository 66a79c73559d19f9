"""Lock files: taken where nobody who lives holds them, and who holds them, in words."""

import os
import socket
from contextlib import suppress
from pathlib import Path

import psutil
from filelock import SoftFileLock, Timeout

AT_ONCE, UNSURE = 0.5, 5.0
"""Seconds for a lock whose holder lives, and for one whose holder does not, or can't be read: a process that was killed
while it took a dead one's lock over leaves what is seen to stand still for two seconds before it is taken over, too."""


def take(lock: SoftFileLock) -> bool:
    """Take a lock, unless a process that may live holds it; whether it was taken.

    Raises:
        OSError: nothing can be written beside it.
    """
    file = Path(lock.lock_file)
    for seconds in (AT_ONCE, UNSURE):
        try:
            lock.acquire(timeout=seconds, poll_interval=0.1)
        except Timeout:
            if _may_live(file):
                return False
            _try_to_write(file)
        else:
            for left in file.parent.iterdir():
                if left.name.startswith(f"{file.name}.break."):
                    with suppress(FileNotFoundError):
                        left.unlink()
            return True
    return False


def _try_to_write(lock: Path) -> None:
    """Raises the system's error on a full disk, where the lock of a dead process can't be taken over."""
    attempt = lock.with_name(f"{lock.name}.{os.getpid()}.tmp")
    try:
        attempt.write_bytes(b"0" * 4096)
    finally:
        attempt.unlink(missing_ok=True)


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
