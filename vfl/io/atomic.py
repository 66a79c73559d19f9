"""Files appear whole or not at all: an interrupted command leaves no half-written result."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it becomes `path` at the end, and vanishes if anything is raised."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A leading dot and the process number: no reader takes it for a result, and two processes do not meet in it.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def clear_temporary(folder: Path, *, without: str) -> None:
    """Remove the temporary files that killed processes left in a folder and below; none may be at work there.

    Args:
        folder: where they wrote.
        without: a file whose folder is left alone, with all below it: somebody else's.
    """
    for place, inner, files in os.walk(folder):
        if Path(place) != folder and without in files:
            inner.clear()
            continue
        inner[:] = [name for name in inner if not name.startswith(".")]
        for name in files:
            if _TEMPORARY.fullmatch(name):
                Path(place, name).unlink(missing_ok=True)
