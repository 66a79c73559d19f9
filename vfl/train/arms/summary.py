"""What a study came to: each arm at its best learning rate, with intervals over seeds and items, and what it costs.

Where several learning rates were run, a part of the new skill's items (validation) chooses each arm's, by the mean over
seeds, and only the other part (test) is reported. Of equals the lower rate is taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from vfl.io.layers import layer_list
from vfl.stats import Floats, crossed_difference, crossed_rate
from vfl.train.arms.answers import RunResult, losses, new_groups, outcomes, parts_of, read_runs
from vfl.train.arms.plan import Study
from vfl.train.report.before_after import Rate


@dataclass(frozen=True)
class RateTried:
    """A learning rate of an arm; `validation` is None where there is a single one."""

    rate: float | None
    seeds: int
    validation: Rate | None
    chosen: bool


@dataclass(frozen=True)
class GroupResult:
    """An arm's answers to a group's items; `against_full` is over the seeds that both have."""

    n: int
    before: float | None
    after: Rate
    against_full: Rate | None


@dataclass(frozen=True)
class ArmResult:
    """An arm at its chosen learning rate.

    Attributes:
        layers: of each seed, as text; one where all are equal.
        new: share of right answers in the new skill; None where the recipe does not say what that is.
        forgotten: mean over the other groups of accuracy before minus after; None where step 0 was not measured.
        step_seconds: median over its runs.
    """

    arm: str
    seeds: tuple[int, ...]
    rate: float | None
    tried: tuple[RateTried, ...]
    layers: tuple[str, ...]
    parameters: int
    bytes: int
    step_seconds: float | None
    new: Rate | None
    forgotten: Rate | None
    groups: dict[str, GroupResult]


@dataclass(frozen=True)
class StudyResult:
    """The study.

    Attributes:
        arms: those with a finished run.
        unfinished: runs that are left, by arm.
        new, old: groups of the evaluation.
        tested: items by group that the results are over.
        validation: items that chose learning rates; 0 where there was nothing to choose.
        steps, batch: of every run.
        runs: everything that was read.
    """

    arms: tuple[ArmResult, ...]
    unfinished: dict[str, int]
    new: tuple[str, ...]
    old: tuple[str, ...]
    tested: dict[str, list[str]]
    validation: int
    steps: int
    batch: int
    runs: tuple[RunResult, ...]


def summarise(study: Study) -> StudyResult | None:
    """Read the finished runs; None while there are none.

    Raises:
        InputError: for runs that can't be compared, and groups that are not measured.
    """
    results = read_runs(study)
    if not results:
        return None
    groups = list(results[0].after)
    new = new_groups(study.new, groups)
    old = tuple(group for group in groups if group not in new)
    several = len({run.rate for run in study.runs}) > 1
    parted = parts_of(results[0].after, new, study.validation) if several else {}
    tested = {group: parted[group][1] if group in parted else sorted(results[0].after[group]) for group in groups}
    kept: dict[str, tuple[list[RunResult], tuple[RateTried, ...]]] = {}
    for arm in study.arms:
        if mine := [result for result in results if result.run.arm == arm.name]:
            kept[arm.name] = _at_best_rate(mine, {group: parts[0] for group, parts in parted.items()})
    arms = []
    for arm in study.arms:
        if arm.name in kept:
            mine, tried = kept[arm.name]
            full = kept[arm.full][0] if arm.full in kept else []
            arms.append(_arm_result(arm.name, mine, tried, full, new, old, tested))
    left = [run.arm for run in study.runs if not run.finished]
    return StudyResult(
        arms=tuple(arms),
        unfinished={name: left.count(name) for name in dict.fromkeys(left)},
        new=new,
        old=old,
        tested=tested,
        validation=sum(len(parts[0]) for parts in parted.values()),
        steps=results[0].steps,
        batch=results[0].batch,
        runs=tuple(results),
    )


def _at_best_rate(
    results: Sequence[RunResult], validation: dict[str, list[str]]
) -> tuple[list[RunResult], tuple[RateTried, ...]]:
    """An arm's runs at the rate that did best on the validation items, and every rate that was tried."""
    by_rate: dict[float | None, list[RunResult]] = {}
    for result in sorted(results, key=lambda each: (each.run.rate or 0.0, each.run.seed)):
        by_rate.setdefault(result.run.rate, []).append(result)
    if not validation:
        ((rate, runs),) = by_rate.items()
        return runs, (RateTried(rate, len(runs), None, True),)
    reached = {
        rate: Rate(*crossed_rate([outcomes(runs, group, items) for group, items in validation.items()]))
        for rate, runs in by_rate.items()
    }
    best = max(reached, key=lambda rate: reached[rate].value)  # the first, so the lowest, of equals
    tried = [RateTried(rate, len(runs), reached[rate], rate == best) for rate, runs in by_rate.items()]
    return by_rate[best], tuple(tried)


def _arm_result(
    name: str,
    runs: Sequence[RunResult],
    tried: tuple[RateTried, ...],
    full: Sequence[RunResult],
    new: Sequence[str],
    old: Sequence[str],
    tested: dict[str, list[str]],
) -> ArmResult:
    measured = all(run.before for run in runs)
    seconds = [run.step_seconds for run in runs if run.step_seconds is not None]
    forgotten = [losses(runs, group, tested[group]) for group in old] if measured and old else []
    return ArmResult(
        arm=name,
        seeds=tuple(run.run.seed for run in runs),
        rate=runs[0].run.rate,
        tried=tried,
        layers=tuple(dict.fromkeys(layer_list(run.layers) for run in runs)),
        parameters=runs[0].parameters,
        bytes=runs[0].bytes,
        step_seconds=median(seconds) if seconds else None,
        new=Rate(*crossed_rate([outcomes(runs, group, tested[group]) for group in new])) if new else None,
        forgotten=Rate(*crossed_difference(forgotten)) if forgotten else None,
        groups={group: _group_result(group, items, runs, full) for group, items in tested.items()},
    )


def _group_result(
    group: str, items: Sequence[str], runs: Sequence[RunResult], full: Sequence[RunResult]
) -> GroupResult:
    before = runs[0].before.get(group)
    return GroupResult(
        n=len(items),
        before=sum(before[item] for item in items) / len(items) if before else None,
        after=Rate(*crossed_rate([outcomes(runs, group, items)])),
        against_full=_against(group, items, runs, full),
    )


def _against(group: str, items: Sequence[str], runs: Sequence[RunResult], full: Sequence[RunResult]) -> Rate | None:
    """Accuracy minus that of all layers, paired over seeds and items; None without a common seed."""
    others = {run.run.seed: run for run in full}
    mine = [run for run in runs if run.run.seed in others]
    if not mine:
        return None
    theirs = outcomes([others[run.run.seed] for run in mine], group, items)
    changes: Floats = outcomes(mine, group, items) - theirs
    return Rate(*crossed_difference([changes]))
