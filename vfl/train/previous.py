"""The run that a new one replaces lies aside until the new one has its first checkpoint, or its end.

Optimizer, scheduler and memory are tried by the first steps alone: a recipe that fails there costs no earlier run.

    out/.previous/   the results of the run before, by their names
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from vfl.io.run_folder import OLD_SETTINGS, SETTINGS
from vfl.train.arguments import CHECKPOINTS
from vfl.train.checkpoints import checkpoints

ASIDE = ".previous"


class PreviousRun:
    """The results of the run before in a folder; all moves are renames, and a killed one is taken up by `settle`.

    Args:
        out: folder of the run; the caller holds its lock.
        results: names of what a run leaves there, besides its settings; the first is written last.
    """

    def __init__(self, out: Path, results: tuple[str, ...]) -> None:
        self.out, self.aside, self.results = out, out / ASIDE, results

    def settle(self, *, resume: bool) -> None:
        """Take up what a killed process left: drop the run before, or put it back; a resumed run goes on as it was."""
        if not self.aside.exists():
            return
        if self._replaced():
            self.drop()
        elif not resume:
            self.put_back()

    def move_aside(self) -> None:
        """Make room for a new run. The settings go first: a folder with settings then holds the new one's."""
        for name in (SETTINGS, *OLD_SETTINGS, *self.results):
            _move(self.out / name, self.aside / name)

    def put_back(self) -> None:
        """Remove the new run's results and bring those of the run before back, the settings last."""
        if not self.aside.exists():
            return
        before = [name for name in (*self.results, *OLD_SETTINGS, SETTINGS) if (self.aside / name).exists()]
        if before and (self.out / SETTINGS).exists():
            for name in (*self.results, SETTINGS):
                _remove(self.out / name)
        for name in before:
            _remove(self.out / name)
            _move(self.aside / name, self.out / name)
        self.drop()

    def drop(self) -> None:
        """Remove the run before for good."""
        shutil.rmtree(self.aside, ignore_errors=True)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Within it, whatever is raised before the new run has something to show puts the run before back."""
        try:
            yield
        except BaseException:
            if self._replaced():
                self.drop()
            else:
                self.put_back()
            raise
        self.drop()

    def _replaced(self) -> bool:
        """Whether the new run has a checkpoint, or its end."""
        ended = (self.out / self.results[0]).exists() or bool(checkpoints(self.out / CHECKPOINTS))
        return (self.out / SETTINGS).exists() and ended


class DropPrevious(TrainerCallback):
    """Removes the run before at the first checkpoint, so that the disk holds both for no longer than it must."""

    def __init__(self, previous: PreviousRun) -> None:
        self.previous = previous

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The checkpoint is whole."""
        if state.is_world_process_zero:
            self.previous.drop()


def _move(source: Path, target: Path) -> None:
    empty = source.is_dir() and not any(source.iterdir())  # which Trainer makes; it is no result
    if source.exists() and not empty:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
