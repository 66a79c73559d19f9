"""The runs below a folder, and the one way to a file in it: nothing outside is read, whatever a name or a link says."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from vfl.errors import InputError
from vfl.io.config import read_yaml
from vfl.io.run_folder import SETTINGS

DEEPEST = 6
MOST = 500
REPORT = "report.html"
PASSED = ("adapter", "checkpoints", "images", "parts", "probes")
"""Folders of a run that hold no other."""
ROWS = "selection or preference rows"
KINDS = {
    "training": ("preflight.json", "metrics.jsonl"),
    "map": ("map.json",),
    "measurement": ("metrics.json",),
    "evaluation": ("evaluation.json",),
    ROWS: ("manifest.json",),
    "study": ("arms.json",),
}
"""Kinds of runs, by any of their files; a folder is of the first that fits."""


@dataclass(frozen=True)
class Run:
    """A run's folder.

    Attributes:
        place: below the root, which is ".".
        kind: what it is.
        report: whether it has a report.
        table: whether it has rows to look at.
        model: that its settings name, where they do.
        changed: the day on which what it holds was last written, as 2026-11-27.
    """

    place: str
    kind: str
    report: bool
    table: bool = False
    model: str = field(default="", compare=False)
    changed: str = field(default="", compare=False)


def file_in(root: Path, place: str) -> Path:
    """The file or folder at a place below `root`, links followed.

    Raises:
        InputError: where there is none, it is hidden, or it lies outside of `root`. All alike, so that nobody learns
            what is outside.
    """
    error = InputError(f"There is no {place!r} in this folder.")
    parts = Path(place).parts
    if "\0" in place or Path(place).is_absolute() or any(part.startswith(".") and part != "." for part in parts):
        raise error
    top = root.resolve()
    try:
        path = (top / place).resolve(strict=True)
    except (OSError, RuntimeError):  # a circle of links is the latter
        raise error from None
    # A link's own name may be plain and lead to a hidden file.
    if not path.is_relative_to(top) or any(part.startswith(".") for part in path.relative_to(top).parts):
        raise error
    return path


def file_of(root: Path, run: str, name: str) -> Path | None:
    """A run's file by its name; None where there is none.

    Raises:
        InputError: where the run's folder is none in `root`, or the file is a link that leads outside.
    """
    folder = file_in(root, run)
    if not os.path.lexists(folder / name):
        return None
    return file_in(root, f"{run}/{name}")


def runs(root: Path) -> list[Run]:
    """Runs in `root` and below, by place; at most MOST. Links are not followed."""
    found = []
    for folder, names, folders in _folders(root):
        parts = "parts" in folders and any((folder / "parts").glob("*.parquet"))
        kind = next((kind for kind, marks in KINDS.items() if any(mark in names for mark in marks)), None)
        if parts and kind in (None, ROWS):
            kind = "scores"
        if kind is not None and (kind != "training" or SETTINGS in names or "preflight.json" in names):
            place = folder.relative_to(root).as_posix()
            rows = parts or "pairs.parquet" in names
            model = _model(folder / SETTINGS) if SETTINGS in names else ""
            found.append(Run(place, kind, REPORT in names, rows, model, _day(folder, names)))
        if len(found) == MOST:
            break
    return sorted(found, key=lambda run: run.place)


def _model(settings: Path) -> str:
    """The model that a run's settings name, or an empty text."""
    try:
        model = read_yaml(settings).get("model")
    except InputError:  # half a file, or none of ours: the run is listed all the same
        return ""
    return model if isinstance(model, str) else ""


def _day(folder: Path, names: set[str]) -> str:
    """When the newest of the files was written."""
    times = []
    for name in names:
        with suppress(OSError):  # a run at work removes files
            times.append((folder / name).stat().st_mtime)
    return date.fromtimestamp(max(times)).isoformat() if times else ""


def _folders(root: Path) -> Iterator[tuple[Path, set[str], set[str]]]:
    """Folders, the names of their plain files, and those of the folders in them."""
    for at, folders, names in os.walk(root):
        here = Path(at)
        deep = len(here.relative_to(root).parts)
        inside = {name for name in folders if not (here / name).is_symlink()}
        folders[:] = sorted(
            name for name in folders if deep < DEEPEST and not name.startswith(".") and name not in PASSED
        )
        yield here, {name for name in names if not (here / name).is_symlink()}, inside
