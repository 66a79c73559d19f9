"""A folder appears whole or not at all, like the files of `vfl.io.atomic`."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder next to `folder`; at the end it takes its place, and vanishes if anything is raised.

    A folder that stands there already goes in one piece. It is moved aside for the moment of the exchange, under a
    name that begins with a dot: after a power cut just then, it is still there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    for left in (temporary, aside):
        shutil.rmtree(left, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for path in [*temporary.rglob("*"), temporary]:
            _sync(path)
        if folder.exists():
            os.rename(folder, aside)
        try:
            os.rename(temporary, folder)
        except OSError:
            if aside.exists():
                os.rename(aside, folder)
            raise
        _sync(folder.parent)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def take_up(folder: Path) -> None:
    """What killed processes left of replacing `folder`; no other may be at work on it.

    One that was killed in the moment of the exchange left what stood there before under its other name: it is put back.
    What was not finished is removed.
    """
    if not folder.parent.is_dir():
        return
    ours = re.compile(rf"\.{re.escape(folder.name)}\.\d+\.(tmp|old)")
    left = [path for path in folder.parent.iterdir() if ours.fullmatch(path.name) and path.is_dir()]
    before = [path for path in left if path.suffix == ".old"]
    if before and not folder.exists():
        os.rename(before[0], folder)
    for path in left:
        shutil.rmtree(path, ignore_errors=True)


def _sync(path: Path) -> None:
    """To disk, names in folders included."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
