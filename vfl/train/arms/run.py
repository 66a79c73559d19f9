"""The runs of a study, several at a time, each a `vfl train` of its own in a folder of its own.

An interrupted study goes on where it stopped: what is finished is kept, what has a checkpoint goes on from there.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from filelock import SoftFileLock

from vfl.errors import InputError
from vfl.io.disk import try_to_write
from vfl.io.lock_holder import take
from vfl.io.progress import progress_bar
from vfl.io.run_folder import LOCK, SETTINGS, RunFolder
from vfl.launching import bound
from vfl.train.arms.devices import places, visible_devices
from vfl.train.arms.plan import ArmRun, Study
from vfl.train.checkpoints import checkpoints
from vfl.train.run import CHECKPOINTS

LOG = "log.txt"
TIMES = "times.jsonl"
TABLE = "arms.json"

Start = Callable[[ArmRun, dict[str, str]], int]


@contextmanager
def holding(study: Study) -> Iterator[None]:
    """Keep the study's folder for this process, and remove what a killed one was writing there.

    Raises:
        InputError: another process works on the study; within, there is no room on the disk.
    """
    with RunFolder(study.out, TABLE).held(overwrite=True):
        for left in study.out.glob(".*.tmp"):  # a run's own lie in its folder, where it may still be at work
            left.unlink()
        for run in study.runs:
            lock = SoftFileLock(run.folder / LOCK)
            if run.finished and Path(lock.lock_file).exists() and take(lock):  # killed between its report and its end
                lock.release()
        yield


def run_all(study: Study, *, jobs: int = 1, launcher: Sequence[str] = (), progress: bool = True) -> None:
    """Train what is not finished, `jobs` at a time, spread over the GPUs that there are; within `holding`.

    Args:
        launcher: what starts a run on several processes, such as ["torchrun", "--standalone", "--nproc-per-node", "4"].

    Raises:
        InputError: when a run failed; its log says why, and the others are finished first.
        OSError: no room is left on the disk.
    """
    places_of_jobs = places(visible_devices(), jobs, spread=bool(launcher))
    failed = spread(
        study, places_of_jobs, lambda run, environment: _train(run, launcher, environment), progress=progress
    )
    if failed:
        try_to_write(study.out / TABLE)  # with a full disk, the log has no room for the reason either
        some = failed[0]
        raise InputError(
            f"{len(failed)} of {len(study.runs)} runs failed, first {some.label}: "
            f"{_last_line(some.folder / LOG)} The whole log is {some.folder / LOG}. Run again to go on."
        )


def spread(study: Study, jobs: Sequence[str | None], start: Start, *, progress: bool = True) -> list[ArmRun]:
    """Start what is not finished, one run on each place at a time, and return the runs that failed.

    Args:
        jobs: CUDA_VISIBLE_DEVICES of each run at a time, None to leave it as it is.
        start: runs one with these variables over the environment; returns its exit code.
    """
    waiting = [run for run in study.runs if not run.finished]
    free: SimpleQueue[str | None] = SimpleQueue()
    for devices in jobs:
        free.put(devices)
    # Processes that each take all cores only wait for each other.
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // len(jobs)))

    def in_place(run: ArmRun) -> tuple[ArmRun, int]:
        with _taken(free) as devices:
            environment = {"OMP_NUM_THREADS": threads}
            environment |= {} if devices is None else {"CUDA_VISIBLE_DEVICES": devices}
            return run, start(run, environment)

    failed: list[ArmRun] = []
    bar = progress_bar(total=len(study.runs), initial=len(study.runs) - len(waiting), desc="runs", disable=not progress)
    with bar, ThreadPoolExecutor(max_workers=len(jobs)) as pool:
        for run, code in pool.map(in_place, waiting):
            if code != 0:
                failed.append(run)
            bar.update()
    return failed


@contextmanager
def _taken(free: "SimpleQueue[str | None]") -> Iterator[str | None]:
    devices = free.get()
    try:
        yield devices
    finally:
        free.put(devices)


def _train(run: ArmRun, launcher: Sequence[str], environment: dict[str, str]) -> int:
    """Exit code of one run in processes of its own."""
    run.folder.mkdir(parents=True, exist_ok=True)
    start = [*launcher, "--module"] if launcher else [sys.executable, "-m"]
    started = (run.folder / SETTINGS).exists()
    going_on = started and bool(checkpoints(run.folder / CHECKPOINTS))
    flag = ["--resume"] if going_on else ["--overwrite"]
    # A study that is killed does not leave its runs training.
    command = [sys.executable, bound.__file__, str(os.getpid()), *start, "vfl.train.launch", str(run.recipe), *flag]
    began = time.time()
    with (run.folder / LOG).open("a", encoding="utf-8") as log:
        code = subprocess.run(
            command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | environment, check=False
        ).returncode
    if code == 0 and not going_on:
        _note(run, time.time() - began)
    return code


def _note(run: ArmRun, seconds: float) -> None:
    """Remember how long a whole run took, for estimates; one short line is written at once."""
    with (run.folder.parent / TIMES).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"run": run.folder.name, "arm": run.arm, "seconds": round(seconds, 1)}) + "\n")


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("Error:") or "Error" in line]
    return (errors or lines or ["no output."])[-1]
