"""Files appear whole or not at all: an interrupted command leaves no half-written result."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
