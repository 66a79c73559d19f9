"""Running commands as a person does who has cloned the repository: one after the other, each timed."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.newcoming.readme import Command
from bench.newcoming.verdicts import Verdict

OUTPUT_SHOWN = 3_000  # characters of a command that failed


@dataclass(frozen=True)
class Tried:
    """A verdict, what its command came to (None: not run), and the wall time in seconds."""

    verdict: Verdict
    code: int | None
    seconds: float
    output: str = ""

    @property
    def came_to(self) -> str:
        """In a word."""
        return "not run" if self.code is None else "ok" if self.code == 0 else f"FAILED ({self.code})"


def try_all(verdicts: Sequence[Verdict], clone: Path, environment: dict[str, str]) -> Iterator[Tried]:
    """Run what is to be run; a block begins in the clone, and its `cd` holds until its end."""
    folder, block = clone, -1
    for verdict in verdicts:
        if verdict.runs is None:
            yield Tried(verdict, None, 0.0)
            continue
        command = verdict.command
        if command.block != block or command.kind == "named":
            folder, block = clone, command.block
        began = time.perf_counter()
        code, output, folder = _run(verdict.runs, command, folder, environment)
        yield Tried(verdict, code, time.perf_counter() - began, output)


def _run(text: str, command: Command, folder: Path, environment: dict[str, str]) -> tuple[int, str, Path]:
    """Exit code, output, and the folder in which the command left the shell."""
    ends = folder / ".newcomer-folder"
    if command.kind == "python":
        arguments = ["python", "-c", text]
    else:
        arguments = ["bash", "-c", f'{text}\ncode=$?; pwd > "$NEWCOMER_FOLDER"; exit $code']
    done = subprocess.run(
        arguments,
        cwd=folder,
        env={**environment, "NEWCOMER_FOLDER": str(ends)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ends.exists():
        left_in = Path(ends.read_text(encoding="utf-8").strip())
        ends.unlink()
        return done.returncode, done.stdout, left_in
    return done.returncode, done.stdout, folder


def clone_of(repository: Path, folder: Path, installed: Path | None) -> tuple[Path, dict[str, str]]:
    """A fresh clone of what is committed, and the environment to run its commands in.

    Args:
        repository: to clone.
        folder: in which the clone is made.
        installed: a virtual environment that has all that `make` installs, which is then left as it is; None for a new
            one, which the first `make` makes.
    """
    clone = folder / "vfl"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(repository), str(clone)], check=True)
    environment = {**os.environ, "PATH": f"{clone / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    if installed is None:
        environment.pop("PYTHONPATH", None)
        return clone, environment | {"PYTHON": sys.executable}
    # The clone's own folder with the environment's parts in it: so `make` sees that all is installed, and PYTHONPATH
    # comes before what was installed there.
    (clone / ".venv").mkdir()
    for part in installed.resolve().iterdir():
        if part.name != ".installed":
            (clone / ".venv" / part.name).symlink_to(part)
    (clone / ".venv" / ".installed").touch()
    return clone, environment | {"PYTHONPATH": str(clone), "INSTALL": "true"}


def shown(verdict: Verdict) -> str:
    """What is run, or would be, on one line."""
    return "a script of Python" if verdict.command.kind == "python" else verdict.runs or verdict.command.text


def table(tried: Sequence[Tried]) -> str:
    """A row a command: its line, time, what it came to, what was run, and why that is not what is written."""
    rows = [("line", "seconds", "", "command", "")]
    for attempt in tried:
        verdict = attempt.verdict
        line = str(verdict.command.line) if verdict.command.line else "–"
        rows.append((line, f"{attempt.seconds:.1f}", attempt.came_to, shown(verdict), verdict.says))
    wide = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = []
    for line, seconds, came_to, runs, says in rows:
        start = f"{line:>{wide[0]}}  {seconds:>{wide[1]}}  {came_to:<{wide[2]}}  {runs}"
        lines.append(start + (f"   ({says})" if says else ""))
    return "\n".join(lines)
