"""What can be made again, kept for later: one folder for all, in which each entry appears whole or not at all.

It is `VFL_CACHE`, or else `vfl` in the folder where the Hugging Face libraries keep models and data sets (`HF_HOME`).
All of it may be deleted at any time; a run that has an entry open keeps what it has opened.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import SoftFileLock, Timeout
from huggingface_hub.constants import HF_HOME

from vfl.io.disk import explained
from vfl.io.folders import replacing_folder
from vfl.io.lock_holder import holder, take

logger = logging.getLogger(__name__)

VARIABLE = "VFL_CACHE"
EVERY = 30.0
"""Seconds after which a process that waits says for whom."""

T = TypeVar("T")


def cache_home() -> Path:
    """The folder of the cache, which may not exist yet."""
    return Path(os.environ.get(VARIABLE) or Path(HF_HOME) / "vfl").expanduser()


def entries() -> dict[Path, int]:
    """The folder of each entry and its bytes, with what a killed process left of it."""
    sizes: dict[Path, int] = {}
    for path in sorted(cache_home().glob("*/*")):
        if path.is_dir():
            folder = path.with_name(path.name.lstrip(".").partition(".")[0])
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            sizes[folder] = sizes.get(folder, 0) + size
    return sizes


def clear_entry(folder: Path) -> bool:
    """Remove an entry, unless a process is at work on it; whether it was removed."""
    lock = _lock_of(folder)
    if not take(lock):
        return False
    try:
        if folder.exists():  # gone in one piece: if this is killed, no part of an entry stays
            os.rename(folder, folder.with_name(f".{folder.name}.{os.getpid()}.old"))
        _clear_leftovers(folder)
    finally:
        lock.release()
    return True


def cached_folder(
    kind: str, key: str, known: Callable[[Path], T | None], make: Callable[[Path], None], *, doing: str
) -> T:
    """What `known` finds in an entry, made first where there is none.

    Of several processes that want the same entry, one makes it while the others wait for as long as it takes. One that
    dies leaves nothing that is taken for an entry, and its lock is taken over.

    Args:
        kind: a folder of the cache.
        key: a name in it, for all that the entry depends on.
        known: reads an entry; None where it is absent or no longer holds.
        make: writes an entry into an empty folder; `known` must find something in it then.
        doing: what a process that makes the entry does, for those that wait.

    Raises:
        InputError: the cache can't be written, or its disk is full.
    """
    folder = cache_home() / kind / key
    with (
        explained(
            folder,
            full=f"Make room there, or set {VARIABLE} to a folder elsewhere.",
            barred=f"Prepared data is kept there: set {VARIABLE} to a folder that can be written.",
        ),
        _alone(folder, doing),
    ):
        entry = known(folder)
        if entry is None:
            _clear_leftovers(folder)
            with replacing_folder(folder) as new:
                make(new)
            entry = known(folder)
            assert entry is not None
        return entry


@contextmanager
def _alone(folder: Path, doing: str) -> Iterator[None]:
    """Within it, no other process makes or reads this entry."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock_of(folder)
    while not lock.is_locked:
        try:
            lock.acquire(timeout=EVERY, poll_interval=0.1)
        except Timeout:
            file = Path(lock.lock_file)
            if not take(lock):
                logger.warning("waiting for %s, which %s. If it is gone, remove %s", holder(file), doing, file)
    try:
        yield
    finally:
        lock.release()


def _clear_leftovers(folder: Path) -> None:
    """Remove what killed processes were making or replacing; the caller holds the lock."""
    for ending in ("tmp", "old"):
        for left in folder.parent.glob(f".{folder.name}.*.{ending}"):
            shutil.rmtree(left, ignore_errors=True)


def _lock_of(folder: Path) -> SoftFileLock:
    return SoftFileLock(folder.with_name(f".{folder.name}.lock"))
