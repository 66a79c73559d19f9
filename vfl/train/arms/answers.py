"""What the runs of a study answered, and the two parts of the new skill's items: one chooses, the other judges.

Legend: S runs (seeds) of an arm, I items of a group.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from vfl.errors import InputError
from vfl.evaluate.answers import Answered
from vfl.evaluate.result import read_answers, read_evaluation
from vfl.stats import Floats
from vfl.train.arms.plan import ArmRun, Study
from vfl.train.callback.evaluation import METRICS
from vfl.train.callback.step_time import STEP_SECONDS
from vfl.train.preflight.facts import Preflight
from vfl.train.report.log import read_log
from vfl.train.run import PREFLIGHT

Items = dict[str, bool]


@dataclass(frozen=True)
class RunResult:
    """One finished run.

    Attributes:
        after: group -> item -> whether it was answered right.
        before: likewise at step 0; empty where that was not measured.
        layers: that were trained.
        parameters, bytes: that were trained.
        steps: optimizer steps.
        batch: rows a step, or packs of them.
        unit: which of these.
        step_seconds: median over the run's steps; None where nothing timed them.
    """

    run: ArmRun
    after: dict[str, Items]
    before: dict[str, Items]
    layers: tuple[int, ...]
    parameters: int
    bytes: int
    steps: int
    batch: int
    step_seconds: float | None
    unit: str = "rows"


def read_runs(study: Study) -> list[RunResult]:
    """The finished runs.

    Raises:
        InputError: when they did not take equally many steps of equally many rows, or were asked different items.
    """
    results = [_read(run) for run in study.runs if run.finished]
    for result in results[1:]:
        first = results[0]
        if (result.steps, result.batch) != (first.steps, first.batch):
            raise InputError(
                f"{result.run.label} took {result.steps} steps of {result.batch} {result.unit}, {first.run.label} took "
                f"{first.steps} of {first.batch}: they can't be compared. Set trainer.max_steps, give every run "
                "as many processes, and remove the folder of the run that is to be done again."
            )
        if {group: set(items) for group, items in result.after.items()} != {
            group: set(items) for group, items in first.after.items()
        }:
            raise InputError(
                f"{result.run.label} and {first.run.label} were not asked the same items. Remove the folder of the run "
                "that is to be done again."
            )
    return results


def _read(run: ArmRun) -> RunResult:
    _, answered = read_evaluation(run.folder)
    flight = Preflight.load(run.folder / PREFLIGHT)
    first = run.folder / "answers" / "step-000000.jsonl"
    return RunResult(
        run=run,
        after=_by_group(answered),
        before=_by_group(read_answers(first)) if first.exists() else {},
        layers=flight.arm.layers,
        parameters=flight.trainable_parameters,
        bytes=flight.trainable_bytes,
        steps=flight.launch.total_steps,
        batch=flight.launch.global_batch,
        step_seconds=_step_seconds(run.folder, flight),
        unit=flight.launch.unit,
    )


def _step_seconds(folder: Path, flight: Preflight) -> float | None:
    """Of the run itself; of runs before there was a clock in them, the preflight's one step on the longest batch."""
    timed = [row[STEP_SECONDS] for _, row in read_log(folder / METRICS).train if STEP_SECONDS in row]
    if timed:
        return timed[-1]
    return flight.time.step_seconds if flight.time else None


def _by_group(answered: Sequence[Answered]) -> dict[str, Items]:
    groups: dict[str, Items] = {}
    for answer in answered:
        groups.setdefault(answer.group, {})[answer.id] = answer.correct
    return groups


def new_groups(names: Collection[str], groups: Sequence[str]) -> tuple[str, ...]:
    """The groups of the new skill: those of these names, and those of data sets of these names.

    Raises:
        InputError: for a name that is no group.
    """
    for name in names:
        if not any(_belongs(group, name) for group in groups):
            raise InputError(f"study.new names {name!r}, which is not measured; measured are {', '.join(groups)}.")
    return tuple(group for group in groups if any(_belongs(group, name) for name in names))


def _belongs(group: str, name: str) -> bool:
    return group == name or group.startswith(f"{name}/")  # a set's column makes `name/value`


def is_validation(item: str, share: float) -> bool:
    """Whether an item belongs to the validation part: by a hash of its name, so alike in every run and study."""
    drawn = int.from_bytes(sha256(f"validation/{item}".encode()).digest()[:8], "big") / 2**64
    return drawn < share


def outcomes(results: Sequence[RunResult], group: str, items: Sequence[str]) -> Floats:
    """(S, I) of 0 and 1 after training."""
    return np.array([[float(result.after[group][item]) for item in items] for result in results])


def losses(results: Sequence[RunResult], group: str, items: Sequence[str]) -> Floats:
    """(S, I): 1 for an item that was right before and is wrong now, -1 the other way round, 0 for no change."""
    before = np.array([[float(result.before[group][item]) for item in items] for result in results])
    return before - outcomes(results, group, items)


def parts_of(items: Mapping[str, Items], groups: Sequence[str], share: float) -> dict[str, tuple[list[str], list[str]]]:
    """Group -> its validation items and its test items; each part has at least one.

    Raises:
        InputError: for a group of a single item, which can't be parted.
    """
    parted = {}
    for group in groups:
        names = sorted(items[group])
        if len(names) < 2:
            raise InputError(
                f"{group!r} has a single item, which can't both choose a learning rate and judge it. Evaluate more."
            )
        chosen = [name for name in names if is_validation(name, share)] or names[:1]
        rest = [name for name in names if name not in set(chosen)]
        parted[group] = (chosen, rest) if rest else (chosen[:-1], chosen[-1:])
    return parted
