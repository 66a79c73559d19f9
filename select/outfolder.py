"""A folder of results that appears whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vfl.errors import InputError


def refuse_if_taken(path: Path, mark: str, *, overwrite: bool) -> None:
    """Raise InputError where `path` holds something that is not to be replaced.

    Args:
        mark: a file that is in every result of this kind; nothing else is ever removed.
    """
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(f"{path} is a file; name a folder.")
    if any(path.iterdir()) and not (overwrite and (path / mark).is_file()):
        kind = "results" if (path / mark).is_file() else "other files"
        raise InputError(
            f"{path} holds {kind}. " + ("Use another folder, or --overwrite." if kind == "results" else "Name another.")
        )


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it takes its place at the end, and vanishes if anything is raised."""
    path = Path(os.path.abspath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
