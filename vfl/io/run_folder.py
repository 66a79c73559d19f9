"""The folder of a run: whose results it holds, whether this run may use it, and that no other process does meanwhile.

    out/settings.yaml   the settings of the run, written when it begins; `--config out/settings.yaml` runs it again
    out/RESULT          the file that is written last: a folder with it holds a finished run
    out/.lock           while a process works there: its number and its machine

Every job refuses and claims its folder here.
"""

import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import SoftFileLock

from vfl.errors import InputError
from vfl.io.atomic import clear_temporary
from vfl.io.config import read_yaml
from vfl.io.disk import explained
from vfl.io.folders import take_up
from vfl.io.json_files import write_text
from vfl.io.lock_holder import holder, take
from vfl.io.renamed import KEYS

SETTINGS = "settings.yaml"
LOCK = ".lock"
OLD_SETTINGS = ("settings.json", "recipe.yaml", "parts/run.json")
"""Where vfl 0.1 kept settings."""


@dataclass(frozen=True)
class RunFolder:
    """A run's folder.

    Attributes:
        path: of the folder, which may not exist yet.
        result: the file that is written last.
        holds: what a finished run left, as messages say it: "a function map".
        another: how another folder is named, as messages say it.
        grows: whether a finished run can be resumed too, to add to it.
        whole: results appear as one folder that takes this one's place, so its lock lies beside it.
        smaller: what makes a run need less room on the disk, as messages say it: "keep fewer checkpoints".
    """

    path: Path
    result: str
    holds: str = "a finished run"
    another: str = "another --out folder"
    grows: bool = False
    whole: bool = False
    smaller: str = ""

    @property
    def finished(self) -> bool:
        """Whether a run came to its end here."""
        return (self.path / self.result).exists()

    @property
    def started(self) -> bool:
        """Whether a run has begun here."""
        return (self.path / SETTINGS).exists()

    @property
    def taken(self) -> bool:
        """Whether results of a run are here, finished or not, of this version or of 0.1."""
        return self.finished or self.started or self.old is not None

    @property
    def old(self) -> str | None:
        """The file in which vfl 0.1 kept the settings of a run here."""
        return next((name for name in OLD_SETTINGS if (self.path / name).exists()), None)

    def refuse_if_taken(self, *, overwrite: bool, resume: bool = False, can_resume: bool = True) -> None:
        """Say whose the folder is, unless this run may use it. Nothing is written.

        Args:
            overwrite: what is here may be replaced.
            resume: a run that was interrupted here is to go on.
            can_resume: whether this job knows `--resume`, for the message.

        Raises:
            InputError: it holds another run, or none to resume.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file; name a folder.")
        if self.whole and not self.finished and self.path.exists() and any(self.path.iterdir()):
            raise InputError(f"{self.path} holds other files, which would be lost. Name another folder.")
        if overwrite:
            return
        if resume:
            self._refuse_to_resume()
        elif self.taken:
            what = self.holds if self.finished else "an interrupted run"
            hint = "--resume to go on with it, " if can_resume and self.started and not self.finished else ""
            if self.grows:
                hint = "--resume to go on with it (or to add to it), "
            raise InputError(f"{self.path} holds {what}. Use {hint}--overwrite to replace it, or {self.another}.")

    def _refuse_to_resume(self) -> None:
        if not self.started and self.old:
            raise InputError(
                f"{self.path} holds a run of vfl 0.1 ({self.old}), which this version can't go on with. Use "
                f"--overwrite to begin again, or {self.another}."
            )
        if self.finished and not self.grows:
            raise InputError(
                f"{self.path} holds a finished run; there is nothing to resume. Use --overwrite to run it again."
            )
        if not self.started:
            raise InputError(f"{self.path} holds no run to resume. Leave --resume out, or name the folder of the run.")

    def refuse_other_settings(self, settings: Mapping[str, Any], *, may_change: Collection[str] = ()) -> None:
        """Refuse to go on with a run that began with other settings.

        Args:
            settings: of this run, as they would be saved.
            may_change: keys that say where and how to run, not what comes out.

        Raises:
            InputError: names each setting that differs, with both values.
        """
        before = under_new_names(read_yaml(self.path / SETTINGS), settings)
        other = [text for key, text in differing(before, settings) if key.partition(".")[0] not in may_change]
        if other:
            raise InputError(
                f"The interrupted run in {self.path} had other settings ({', '.join(other)}). Use the same, or "
                "--overwrite to begin again."
            )

    def clear(self, results: Collection[str]) -> None:
        """Remove an earlier run's `results` (patterns), then its settings; other files stay."""
        # The settings last: what a kill leaves is an interrupted run of those settings, and nobody else's rows.
        (self.path / self.result).unlink(missing_ok=True)
        for pattern in results:
            for path in self.path.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
        for name in (*OLD_SETTINGS, SETTINGS):
            (self.path / name).unlink(missing_ok=True)

    def save(self, settings: Mapping[str, Any]) -> None:
        """Write the settings, whole or not at all."""
        write_settings(self.path, settings)

    @contextmanager
    def held(self, *, overwrite: bool, resume: bool = False, can_resume: bool = True) -> Iterator[None]:
        """Keep the folder for this process until the end, if this run may use it; arguments and errors as above.

        The lock of a process that died is taken over, and what it was writing is removed. A run that is refused leaves
        the folder as it was. Within, a disk without room is an InputError, too.
        """
        with self.explained(can_resume=can_resume):
            if not self.lock_file.exists():  # else say who works there, rather than what is there so far
                self.refuse_if_taken(overwrite=overwrite, resume=resume, can_resume=can_resume)
            with self._lock():
                if self.whole:
                    take_up(self.path)
                self.refuse_if_taken(overwrite=overwrite, resume=resume, can_resume=can_resume)
                if self.started and not self.whole:
                    clear_temporary(self.path, without=SETTINGS)
                yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep the folder for this process, whatever it holds; errors as of `held`, less those of `refuse_if_taken`."""
        with self.explained(can_resume=False), self._lock():
            yield

    def look(self, *, overwrite: bool, can_resume: bool = True) -> None:
        """Raise what `held` would, before slow steps that end with it."""
        with self.held(overwrite=overwrite, can_resume=can_resume):
            pass

    def explained(self, *, can_resume: bool = True) -> AbstractContextManager[None]:
        """Within it, a lack of room or of rights to write is an InputError that says how to go on.

        Args:
            can_resume: whether this job knows `--resume`.
        """

        def full() -> str:
            room = f"make room{f', {self.smaller}' if self.smaller else ''}"
            if self.whole:
                return f"Nothing was written there: {room}, or give {self.another}."
            if not self.started or self.finished:
                return f"Nothing is lost: {room} and give the same command again, or {self.another}."
            if not can_resume:
                return f"Nothing else is lost: {room} and run it again with --overwrite, or give {self.another}."
            return f"What was finished is kept: {room} and go on with --resume, or give {self.another}."

        return explained(self.path, full=full, barred=f"Give {self.another}, or the rights to write there.")

    @property
    def lock_file(self) -> Path:
        """Where the lock lies."""
        return self.path.with_name(f".{self.path.name}{LOCK}") if self.whole else self.path / LOCK

    @contextmanager
    def _lock(self) -> Iterator[None]:
        file = self.lock_file
        made = [folder for folder in (file.parent, *file.parent.parents) if not folder.exists()]
        file.parent.mkdir(parents=True, exist_ok=True)
        held = SoftFileLock(file)
        if not take(held):
            raise InputError(
                f"{self.path} is being written by {holder(file)}. Wait for it, or use {self.another}. If that process "
                f"is gone, remove {file}."
            )
        try:
            yield
        finally:
            held.release()
            for folder in made:  # an empty folder would be all that a refused run leaves
                if any(folder.iterdir()):
                    break
                folder.rmdir()


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write a run's settings beside its results, as YAML that `--config` reads."""
    write_text(folder / SETTINGS, yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True))


def under_new_names(before: Any, now: Any) -> Any:
    """Settings that an earlier version saved, with the keys that those of now have instead."""
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return before
    names = {key: KEYS[key][0] for key in before if key in KEYS and key not in now and KEYS[key][0] in now}
    return {names.get(key, key): under_new_names(value, now.get(names.get(key, key))) for key, value in before.items()}


# Settings that a run of an earlier version did not save, and what it did.
BEFORE_THEY_CAME = {
    "data.streaming": False,
    "screen": False,
    "fsdp": False,
    "random_weights": False,
    "off_manifold": False,
}


def differing(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys of two settings whose values differ, each with both values for a person."""
    before = BEFORE_THEY_CAME.get(key) if before is None else before
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for inner in {**before, **now}:
            yield from differing(before.get(inner), now.get(inner), f"{key}.{inner}" if key else inner)
    elif before != now:
        yield key, f"{key}: {before!r} then, {now!r} now"
