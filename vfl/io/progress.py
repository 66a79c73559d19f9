"""Progress of long work: a bar on a terminal and in a notebook, and now and then a plain line in a log file."""

import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm
from tqdm.auto import tqdm as tqdm_auto

EVERY = 30.0
"""Seconds between two lines of a log."""


class _Lines:
    """A text file to which each state of a bar is one line."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, text: str) -> None:
        # a bar moves to the line's start to overwrite itself, with spaces where it leaves nothing behind
        if state := text.strip("\r\n "):
            self.file.write(state + "\n")

    def flush(self) -> None:
        self.file.flush()


def say(bar: Any, line: str) -> None:
    """A line above a bar on standard error; none where the bar itself is not shown."""
    if not bar.disable:
        bar.write(line, file=sys.stderr)


def say_between(line: str) -> None:
    """A line on standard error between two bars; none with `--quiet`."""
    if not os.environ.get("TQDM_DISABLE"):
        print(line, file=sys.stderr)


def progress_bar(rows: Iterable[Any] | None = None, desc: str | None = None, **options: Any) -> Any:
    """A tqdm bar over `rows`, or one that is updated by hand.

    Where standard error is no terminal (a log file, a pipe) each state is a line of its own, at most every EVERY
    seconds; none is shown where TQDM_DISABLE is set, as `--quiet` does.

    Args:
        rows: what is counted; None with `total`.
        desc: what is done.
        options: tqdm's own.
    """
    # tqdm itself looks there only when it is imported
    options["disable"] = options.get("disable") or bool(os.environ.get("TQDM_DISABLE"))
    if sys.stderr.isatty() or any("notebook" in kind.__module__ for kind in tqdm_auto.__mro__):
        return tqdm_auto(rows, desc, **options)
    # miniters: or tqdm would guess after how many rows to look again, and show an old state meanwhile
    plain: dict[str, Any] = {"file": _Lines(sys.stderr), "mininterval": EVERY, "miniters": 1, "ncols": 0}
    return tqdm(rows, desc, **{**options, **plain})
