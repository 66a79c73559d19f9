"""Who holds a lock file, in words."""

from pathlib import Path


def holder(file: Path) -> str:
    """The process, from the number and the machine that its file begins with."""
    try:
        process, host, *_ = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, ValueError):  # just given back, or not written yet
        return "another process"
    return f"process {process} on {host}"
