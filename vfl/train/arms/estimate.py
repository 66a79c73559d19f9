"""How long the rest of a study takes, from what its runs took so far."""

import json
from dataclasses import dataclass
from statistics import mean

from vfl.errors import InputError
from vfl.train.arms.plan import ArmRun, Study
from vfl.train.arms.run import TIMES
from vfl.train.preflight.facts import Preflight
from vfl.train.run import PREFLIGHT


@dataclass(frozen=True)
class Estimate:
    """Seconds that are left with so many runs at a time, and what that rests on; None where nothing has run."""

    seconds: float | None
    rests_on: str


def estimate(study: Study, jobs: int = 1) -> Estimate:
    """Each run that is left takes as long as its arm's finished ones did on average, or all of them.

    Before the first has finished, what a preflight measured stands for it: a step and an evaluation.
    """
    left = [run for run in study.runs if not run.finished]
    times = _times(study)
    if times:
        every = mean(seconds for of_arm in times.values() for seconds in of_arm)
        total = sum(mean(times[run.arm]) if run.arm in times else every for run in left)
        count = sum(map(len, times.values()))
        return Estimate(total / jobs, f"from {count} finished run{'s' if count > 1 else ''}")
    measured = [seconds for run in study.runs if (seconds := _foreseen(run)) is not None]
    if measured:
        return Estimate(mean(measured) * len(left) / jobs, "from the steps that preflights measured")
    return Estimate(None, "nothing has run yet: `vfl train RECIPE --check` measures a step")


def _times(study: Study) -> dict[str, list[float]]:
    """Seconds of whole runs by arm."""
    path = study.out / TIMES
    times: dict[str, list[float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
            times.setdefault(row["arm"], []).append(float(row["seconds"]))
        except (ValueError, KeyError, TypeError):  # the last line of a study that was killed in it
            continue
    return times


def _foreseen(run: ArmRun) -> float | None:
    try:
        time = Preflight.load(run.folder / PREFLIGHT).time
    except InputError:  # not begun
        return None
    return time.total_seconds if time else None
