"""Commands of `vfl` that meet a fault, in children of one warm process, and go on after it as a person would.

python faulted.py JOB.json

    {"start": [...], "again": [...], "result": NAME, "folder": DIR, "seed": N,
     "imports": [...], "others": N, "kills": N, "full": N, "kinds": [...], "tensors": bool, "embedded": bool,
     "runs": bool}

`start` and `again` are the words of a command, in which {out} stands for the run's folder; `again` is for a folder that
has settings. First, one run goes to its end as DIR/whole. Then the faults come, one a process, in folders DIR/0, DIR/1,
...: a run that comes to its end is followed by one in the next folder, and the last is brought to its end. `others`,
`kills` and `full` say how often each fault has to be met; `seed` draws when, as a part of what the whole run did:

    second  the process stands still at a write while another runs the same command, then goes on
    write   killed before a write: an opened file, a made, renamed or removed path below the run's folder
    time    killed after a time
    torn    killed when half of a file of tensors is written (`tensors`)
    full    from a write on, no file can grow, as on a full disk

`kinds` are the ways to kill; without it, all in turn. With `runs`, the command starts runs of `vfl train`, which are
forks here: a fault comes in whichever process makes the write, and what kills or stops one kills or stops all. Prints a
JSON object: `ends`, the folders that came to their end, and `met`, a row for each process, with its exit code, what it
printed, and what was wrong with the files that it left.
"""

import ctypes
import importlib
import json
import mmap
import os
import random
import resource
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import safetensors.torch
import torch

WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}
GROWING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
DRAWS = 4
"""Times as often as a fault is to be met that it is tried: one may come after the end."""


class Counter:
    """Two numbers that a child counts and its parent reads: writes, and files of tensors."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 16)

    def read(self) -> tuple[int, int]:
        """Writes and files of tensors so far."""
        writes, tensors = struct.unpack("qq", self._shared[:])
        return writes, tensors

    def add(self, *, writes: int = 0, tensors: int = 0) -> tuple[int, int]:
        """Count more; both numbers before."""
        before = self.read()
        self._shared[:] = struct.pack("qq", before[0] + writes, before[1] + tensors)
        return before


def die() -> None:
    """As by `kill -9`: nothing is cleaned up."""
    os.killpg(0, signal.SIGKILL)


def stand_still() -> None:
    """Until the parent says to go on."""
    os.killpg(0, signal.SIGSTOP)


def fill_disk() -> None:
    """No file of this process grows any more; what there is can be renamed and removed."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def fill_disk_of_all() -> None:
    """For the command that started this process, too."""
    fill_disk()
    resource.prlimit(os.getpgid(0), resource.RLIMIT_FSIZE, resource.getrlimit(resource.RLIMIT_FSIZE))


def at_write(out: Path, number: int | None, act: Callable[[], None], counter: Counter) -> None:
    """Count what is written below `out`, or beside it to take its place; act before write `number`."""
    places = (str(out), str(out.with_name(f".{out.name}.")))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            growing = bool(set(mode) & set("wax+")) if isinstance(mode, str) else bool(flags & GROWING)
            if not growing:
                return
        elif event in WRITES:
            path = arguments[0]
        else:
            return
        if str(path).startswith(places) and counter.add(writes=1)[0] == number:
            act()

    sys.addaudithook(hook)


def at_tensors(number: int | None, counter: Counter) -> None:
    """Count the files of tensors, and die when half of number `number` is written."""
    import vfl.train.adapter.files

    def torn(write: Any, where: int) -> Any:
        def save(*arguments: Any, **options: Any) -> Any:
            result = write(*arguments, **options)
            if counter.add(tensors=1)[1] == number:
                path = Path(arguments[where])
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
                die()
            return result

        return save

    torch.save = torn(torch.save, 1)
    safetensors.torch.save_file = vfl.train.adapter.files.save_file = torn(safetensors.torch.save_file, 1)


def command(words: Sequence[str]) -> int:
    """`vfl WORDS`: its exit code."""
    from vfl.commands.main import run

    sys.argv[1:] = words
    try:
        run()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # as Python itself ends
        traceback.print_exc()
        return 1
    return 0


class Child:
    """A command in a process of its own, and what it prints."""

    def __init__(self, words: Sequence[str], arm: Callable[[], None] = lambda: None) -> None:
        self.printed, self.code, self.ended, self.stands = b"", 0, False, False
        self._reading, writing = os.pipe()
        self.pid = os.fork()
        os.setpgid(self.pid, self.pid)  # in both, whichever is first
        if self.pid == 0:
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            arm()
            code = command(words)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        os.close(writing)
        os.set_blocking(self._reading, False)

    def wait(self, *, seconds: float | None = None, standing: bool = False) -> "Child":
        """Until its end, or until it stands still; it is killed after so many seconds."""
        end = None if seconds is None else time.monotonic() + seconds
        while not (status := os.waitpid(self.pid, os.WNOHANG | (os.WUNTRACED if standing else 0)))[0]:
            if end is not None and time.monotonic() >= end:
                os.killpg(self.pid, signal.SIGKILL)
                end = None
            self._read(0.005)
        self._read(0)
        self.stands = os.WIFSTOPPED(status[1])
        if not self.stands:
            self.code, self.ended = os.waitstatus_to_exitcode(status[1]), True
            os.close(self._reading)
            with suppress(ChildProcessError):  # what it started, and did not wait for
                while os.waitpid(-self.pid, 0):
                    pass
        return self

    def _read(self, seconds: float) -> None:
        while select.select([self._reading], [], [], seconds)[0]:
            try:
                more = os.read(self._reading, 1 << 16)
            except BlockingIOError:
                return
            if not more:
                time.sleep(seconds)
                return
            self.printed, seconds = self.printed + more, 0

    @property
    def text(self) -> str:
        """What it printed."""
        return self.printed.decode(errors="replace")


def damaged(out: Path) -> list[str]:
    """Files with the name of a result that are no whole ones; those that begin with a dot, or lie in such, are none."""
    wrong = []
    for path in sorted(out.rglob("*")):
        if path.is_dir() or any(part.startswith(".") for part in path.relative_to(out).parts):
            continue
        try:
            if path.suffix == ".parquet":
                pq.read_table(path, use_threads=False)
            elif path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix == ".safetensors":
                safetensors.torch.load_file(path)
            elif path.name == "optimizer.pt":
                torch.load(path, weights_only=True)
        except Exception as error:
            wrong.append(f"{path.relative_to(out)}: {error}")
    return wrong


def left_behind(out: Path) -> list[str]:
    """What was to take a name and did not, and locks."""
    names = (".tmp", ".old", ".lock", ".writing", ".previous")
    beside = [path for path in out.parent.glob(f".{out.name}.*") if path.name.endswith(names)]
    return sorted(path.name for path in [*beside, *out.rglob(".*")] if path.name.endswith(names))


def parts(out: Path) -> dict[str, tuple[int, int]]:
    """Finished parts, and runs within a run, each with what changes when it is written again."""
    finished = [*out.glob("parts/[!.]*"), *out.glob("*/report.html")]
    return {str(path.relative_to(out)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in finished}


class Runs:
    """The runs of one job, fault by fault."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job, self.folder, self.number = job, Path(job["folder"]), 0
        self.ends: list[str] = []
        self.met: list[dict[str, Any]] = []
        whole, counter, start = self.folder / "whole", Counter(), time.monotonic()
        child = Child(self._words(whole, "start"), lambda: self._arm(whole, "none", None, counter)).wait()
        assert child.code == 0, child.text
        self.seconds, (self.writes, self.tensors) = time.monotonic() - start, counter.read()

    @property
    def out(self) -> Path:
        """The folder of the run that goes on."""
        return self.folder / str(self.number)

    def _words(self, out: Path, which: str) -> list[str]:
        return [word.replace("{out}", str(out)) for word in self.job[which]]

    def words(self) -> list[str]:
        """The command that a person would give for the folder as it is."""
        return self._words(self.out, "again" if (self.out / "settings.yaml").exists() else "start")

    def _arm(self, out: Path, kind: str, number: int | None, counter: Counter) -> None:
        acts = {"write": die, "full": fill_disk_of_all, "second": stand_still}
        at_write(out, number if kind in acts else None, acts.get(kind, die), counter)
        if self.job.get("tensors"):
            at_tensors(number if kind == "torn" else None, counter)

    def meet(self, kind: str, part: float) -> dict[str, Any]:
        """One fault, or none where the run ends before; its row. A run that has its result is over."""
        number = 1 + int(part * (self.tensors if kind == "torn" else self.writes - 1))
        seconds = part * self.seconds if kind == "time" else None
        words, out, counter = self.words(), self.out, Counter()
        before = parts(out)
        child = Child(words, lambda: self._arm(out, kind, number, counter))
        row: dict[str, Any] = {"kind": kind, "at": seconds or number, "folder": out.name, "words": words}
        if kind == "second":
            child.wait(standing=True)
            if child.stands:
                other = Child(words).wait()
                os.killpg(child.pid, signal.SIGCONT)
                row |= {"pid": child.pid, "second": {"code": other.code, "text": other.text}}
        if not child.ended:
            child.wait(seconds=seconds)
        row |= {"code": child.code, "text": child.text, "damaged": damaged(out), "left": left_behind(out)}
        after = parts(out)
        row["again"] = sorted(name for name in before if after.get(name, before[name]) != before[name])
        self.met.append(row)
        if child.code == 0 or (out / self.job["result"]).exists():
            self.next()
        return row

    def meet_often(
        self, kinds: Sequence[str], times: int, met: Callable[[dict[str, Any]], bool], draw: random.Random, until: float
    ) -> None:
        """Faults of these kinds in turn, until so many have come before the end of a run."""
        count = 0
        for number in range(DRAWS * times):
            if count == times:
                break
            count += met(self.meet(kinds[number % len(kinds)], draw.random() * until))

    def next(self) -> None:
        """Another folder."""
        self.ends.append(self.out.name)
        self.number += 1

    def finish(self) -> None:
        """Bring the last run to its end."""
        if self.out.exists():
            self.meet("none", 0)


@cache
def _loaded(*options: Any) -> Any:
    return _load(options[0], **dict(options[1:]))


def make_ready() -> None:
    """What a command makes before its own work, and for its page, is made once, for all children."""
    import vfl.commands.main
    from vfl.report.page import SHARED, environment

    vfl.commands.main.command_line = cache(vfl.commands.main.command_line)
    vfl.commands.main.command_line()
    for name in [name for name in sys.modules if name.startswith("vfl.") and name.endswith(".page")]:
        page, folder = sys.modules[name], Path(str(sys.modules[name].__file__)).parent
        templates = page._environment() if hasattr(page, "_environment") else environment(folder)
        for path in (*folder.glob("*.html.jinja"), *SHARED.glob("*.html.jinja")):
            templates.get_template(path.name)


def share_model() -> None:
    """The embedded model is read once, for all children: reading it writes nothing."""
    global _load
    import vfl.loading.config
    from vfl.locate.config import LocateConfig

    _load = vfl.loading.config.load
    vfl.loading.config.load = lambda model, **options: _loaded(model, *sorted(options.items()))
    vfl.loading.config.load_from(LocateConfig(out=Path()))


def fork_runs() -> None:
    """`vfl arms` starts its runs as forks of itself."""
    import vfl.train.arms.run
    import vfl.train.launch

    def run(words: Sequence[str], *, stdout: Any, env: dict[str, str], **_: Any) -> Any:
        pid = os.fork()
        if pid == 0:
            os.dup2(stdout.fileno(), 1)
            os.dup2(stdout.fileno(), 2)
            os.environ.update(env)
            code = 1
            with suppress(BaseException):  # nor has a full disk room for what would be printed
                code = vfl.train.launch.main(words[words.index("vfl.train.launch") + 1 :])
                sys.stdout.flush()
            os._exit(code)
        return SimpleNamespace(returncode=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    vfl.train.arms.run.subprocess = SimpleNamespace(run=run, STDOUT=None)  # type: ignore[assignment]


def become_their_parent() -> None:
    """Processes whose own one was killed are waited for here."""
    pr_set_child_subreaper = 36
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def main(job: dict[str, Any]) -> None:
    """All faults of a job."""
    for name in ("vfl.commands.main", *job["imports"]):
        importlib.import_module(name)
    make_ready()
    if job.get("embedded"):
        share_model()
    if job.get("runs"):
        fork_runs()
        become_their_parent()
    runs, draw = Runs(job), random.Random(job["seed"])
    runs.meet_often(["second"], job["others"], lambda row: "second" in row, draw, 0.9)
    kills = job.get("kinds") or ["time", "write", *(["torn"] if job.get("tensors") else [])]
    # A run that goes on has less to write than a whole one, and little is killed behind its end.
    runs.meet_often(kills, job["kills"], lambda row: row["code"] == -signal.SIGKILL, draw, 0.5)
    runs.meet_often(["full"], job["full"], lambda row: row["code"] == 2, draw, 0.5)
    runs.finish()
    print(json.dumps({"ends": runs.ends, "met": runs.met}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
