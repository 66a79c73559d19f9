"""What is run, in the order in which it decides most, and the rules that choose from what was run."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from experiments.layers.bed import NEW

SET_ON = ("roman", "poster")  # the learning rate is chosen on these; the others judge
JUDGED_ON = ("cells", "worn", "dark")
RATES = (2e-3, 5e-3)
RATED = ("full", "gradient")
FIRST = ("full", "function", "gradient", "thin", "protect", "random 0", "uniform")
SECOND = ("half", "reversed", "attention", "warmup", "similarity", "mlp", "lowest", "fisher", "random 1", "random 2")
REPLAYED = ("full", "half", "function")
SHARE, FIFTH = 0.1, 0.2
STEPS, BATCH = 120, 6
ALL_TASKS, PRETRAINED_STEPS = ("cells", "letters", "roman", "counts", "poster", "dark"), 80
# The second look: twice the steps and the other rate, on a task that no arm had learned and where forgetting was large.
LONG_STEPS, LONG_RATE, LONG_TASKS = 240, 5e-3, ("cells", "poster")
FINAL = ("full", "thin", "half")
JUDGES = ("letters", "counts", "dark", "roman")
# Old rows as anchors: the weight of their KL term is chosen for one arm on one task of the planted model, seed 0.
BETAS, WEIGHED, WEIGHED_ON = (1.0, 3.0, 10.0), "thin", "poster"
HELD, HELD_ON = ("full", "thin"), ("cells", "dark")
# Ways to keep the old: share of old rows, weight of their KL term, whether half of them are of the task's own function.
Way = tuple[float, float | None, bool | None]
KEPT: tuple[Way, ...] = (
    (SHARE, None, None), (SHARE, None, True), (SHARE, 3.0, None), (SHARE, 3.0, True),
    (FIFTH, None, None), (FIFTH, None, True), (FIFTH, 3.0, True),
)  # fmt: skip
KEPT_ON = (("cells", 0), ("poster", 0), ("dark", 0), ("dark", 1), ("cells", 1))
CHOSEN = (SHARE, 3.0, True)  # by `best_kept`
AUTO = "thin, alpha kept"  # `layers: auto` as it is
SPARED = 3  # of so many steps, all but one have a backward pass that ends at the image
FEW = ("gradient", "half", "protect", "random 0")
FEWER = ("upper, alpha kept", "function, alpha kept", "gradient", "random 0")  # a pretrained decoder's layers
# Every other rule, as `auto` is trained: its rate, its way to keep the old, full LoRA's alpha.
RULES = tuple(f"{name}, alpha kept" for name in (
    "slower", "soft", "gradient", "attention", "mlp", "uniform", "random 0", "warmup", "fisher", "similarity", "upper",
    "function", "protect",
))  # fmt: skip
RULED_ON, AS_GOOD = ("cells", "poster", "counts", "dark"), (*RULES[:1], "attention, alpha kept", "protect, alpha kept")
LONG = ("full", "protect", "function", "half", "gradient", "thin")


@dataclass(frozen=True)
class Run:
    """One training run."""

    model: str
    task: str
    arm: str
    rate: float
    seed: int
    replay: float
    beta: float | None = None  # of the KL term that holds the old rows; None: they are learned again
    favour: bool | None = None  # half of the old rows are of the task's own function; None: as the pool has them
    whole_every: int | None = None  # steps, one of which goes back through the image too (0: none); None: all do

    def key(self) -> str:
        return json.dumps({name: value for name, value in asdict(self).items() if value is not None})


def planned(model: str, rate: float | None, seeds: int) -> Iterator[Run]:
    """Runs in the order in which they decide most; those after the rates only once the rate is known."""
    yield from (Run(model, task, arm, each, 0, 0.0) for task in SET_ON for arm in RATED for each in RATES)
    if rate is None:
        return
    tasks = (*SET_ON, *JUDGED_ON)
    yield from (Run(model, task, arm, rate, 0, 0.0) for task in tasks[:3] for arm in FIRST)
    yield from (Run(model, task, arm, rate, 0, SHARE) for task in reversed(tasks) for arm in REPLAYED)
    yield from (Run(model, task, arm, rate, 0, 0.0) for task in reversed(tasks[3:]) for arm in FIRST)
    yield from (Run(model, task, "thin", rate, 0, SHARE) for task in tasks)
    yield from (Run(model, task, arm, rate, 0, 0.0) for arm in SECOND for task in tasks)
    for seed in range(1, seeds):
        yield from (
            Run(model, task, arm, rate, seed, replay) for task in tasks for arm in REPLAYED for replay in (SHARE, 0.0)
        )


def planned_long(model: str) -> Iterator[Run]:
    """Longer runs, with replay and without."""
    for task in LONG_TASKS:
        for replay in (SHARE, 0.0):
            yield from (Run(model, task, arm, LONG_RATE, 0, replay) for arm in LONG)
    yield from (Run(model, task, arm, LONG_RATE, 0, SHARE) for task in ("dark", "roman") for arm in FINAL)
    yield from (
        Run(model, task, arm, LONG_RATE, seed, SHARE) for seed in (1, 2) for task in LONG_TASKS for arm in FINAL
    )


def planned_judged(model: str) -> Iterator[Run]:
    """With replay, on tasks that chose neither rate nor rule; on another model than the planted one on all of them."""
    tasks = JUDGES if model == "planted" else (*JUDGES[:2], *LONG_TASKS, *JUDGES[2:])
    everything = (*LONG_TASKS, *JUDGES)
    for seed in range(2):
        arms = ("thin", "full", "settled")
        yield from (Run(model, task, arm, LONG_RATE, seed, FIFTH) for task in everything for arm in arms)
    for seed in range(3):
        yield from (Run(model, task, "settled", LONG_RATE, seed, SHARE) for task in everything)
        yield from (Run(model, task, arm, LONG_RATE, seed, SHARE) for task in tasks for arm in ("thin", "full"))
        if seed == 0:
            yield from (Run(model, task, arm, LONG_RATE, 0, SHARE) for task in tasks for arm in ("upper", "function"))
    yield from (Run(model, task, arm, LONG_RATE, 0, SHARE) for arm in FEW for task in tasks)
    yield from (Run(model, task, arm, LONG_RATE, 0, 0.0) for task in tasks for arm in ("full", "thin", "settled"))


def planned_anchors(model: str, beta: float | None, seeds: int) -> Iterator[Run]:
    """Old rows held by a KL term beside the same rows replayed; its weight first, on the planted model."""
    if model == "planted":
        yield from (Run(model, WEIGHED_ON, WEIGHED, LONG_RATE, 0, SHARE, each) for each in BETAS)
    if beta is None:
        return
    for seed in range(seeds):
        for task in HELD_ON:
            yield from (Run(model, task, arm, LONG_RATE, seed, SHARE, each) for arm in HELD for each in (beta, None))


def planned_kept(model: str) -> Iterator[Run]:
    """How old rows are kept: their share, how many of them are of the task's own function, learned again or held."""
    for arm in ("thin", "rank 8"):
        for task in LONG_TASKS:
            yield from (Run(model, task, arm, LONG_RATE, 0, *kept) for kept in KEPT)
    for task, seed in KEPT_ON:  # those of the first seed stand above
        yield from (Run(model, task, "thin", LONG_RATE, seed, *kept) for kept in KEPT)


def best_kept(results: list[dict[str, Any]]) -> Way | None:
    """The way with the highest sum; None before all of its runs are there."""
    sums = kept_sums(results)
    return max(sums, key=lambda kept: sums[kept]) if sums else None


def kept_sums(results: list[dict[str, Any]]) -> dict[Way, float]:
    """Of each way the sum over tasks of what `thin` learned and the mean of what it kept; empty before all are run."""
    reached = {row["run"]: row["after"] for row in results}
    sums: dict[Way, float] = {}
    for kept in KEPT:
        scores: dict[str, list[float]] = {}
        for task, seed in KEPT_ON:
            after = reached.get(Run("planted", task, "thin", LONG_RATE, seed, *kept).key())
            if after is None:
                return {}
            scores.setdefault(task, []).append(learned_and_kept(after))
        sums[kept] = sum(float(np.mean(each)) for each in scores.values())
    return sums


def planned_confirmed(model: str, seeds: int) -> Iterator[Run]:
    """The way to keep the old that did best where it was chosen, on what chose nothing; full LoRA with plain replay."""
    everything = (*LONG_TASKS, *JUDGES)
    judged = everything if model != "planted" else tuple(task for task in JUDGES if task != "dark")
    for seed in range(seeds):
        yield from (Run(model, task, "thin", LONG_RATE, seed, *CHOSEN) for task in judged)
    for seed in range(seeds):
        yield from (Run(model, task, "full", LONG_RATE, seed, SHARE) for task in everything)
    forgot = ("cells", "dark", "poster", "counts")
    for seed in range(seeds):  # is it the layers or the way?
        yield from (Run(model, task, "full", LONG_RATE, seed, *CHOSEN) for task in forgot)
    yield from (Run(model, task, "full", RATES[0], 0, SHARE) for task in forgot)  # or the rate?
    for seed in range(seeds):
        yield from (Run(model, task, "full", RATES[0], seed, *CHOSEN) for task in forgot)
    yield from (Run(model, task, AUTO, RATES[1], 0, *CHOSEN) for task in forgot)  # or the rank's part in the rate?
    yield from (Run(model, task, AUTO, RATES[0], seed, *CHOSEN) for seed in range(seeds) for task in judged)
    for seed in range(2):  # which half of it stands in the way of finer counts?
        yield from (Run(model, "counts", "thin", LONG_RATE, seed, *kept) for kept in KEPT[:3])
    for seed in range(seeds):
        yield from (Run(model, task, "function", LONG_RATE, seed, *CHOSEN) for task in judged)
    for every in (SPARED, 0):  # the backward pass ends at the image, but for one step in so many
        for seed in range(seeds):
            yield from (Run(model, task, AUTO, RATES[0], seed, *CHOSEN, whole_every=every) for task in judged)


def planned_finish(model: str, seeds: int) -> Iterator[Run]:
    """The two finalists on every task, and beside `auto` every other rule trained as it is, at two rates.

    No rate is chosen. The lower one is `auto`'s and comes first.
    """
    for seed in range(seeds):
        for task in ALL_TASKS:
            yield Run(model, task, AUTO, RATES[0], seed, *CHOSEN)
            yield Run(model, task, "full", RATES[1], seed, SHARE)
    yield from (Run(model, task, arm, RATES[0], 0, *CHOSEN) for arm in RULES for task in RULED_ON)
    for seed in (1, 2):  # of those that did as well
        yield from (Run(model, task, arm, RATES[0], seed, *CHOSEN) for arm in AS_GOOD for task in RULED_ON)
    yield from (Run(model, task, arm, RATES[1], 0, *CHOSEN) for arm in RULES for task in RULED_ON)


def planned_pretrained(model: str, seeds: int) -> Iterator[Run]:
    """A model around a pretrained decoder: the way to keep the old that was chosen elsewhere, in all and in few layers.

    One rate for every arm, that of the model's own training, and a higher one for few layers: nothing is chosen on it.
    """
    for seed in range(seeds):
        for task in ALL_TASKS:
            yield Run(model, task, "full", RATES[0], seed, SHARE)
            yield Run(model, task, AUTO, RATES[0], seed, *CHOSEN)
    some = range(min(seeds, 3))
    for seed in some:  # is it the layers, or the way the old is kept? and what a shorter backward pass costs
        for task in ALL_TASKS:
            yield from (Run(model, task, arm, RATES[0], seed, *CHOSEN) for arm in ("full", *FEWER))
            yield from (Run(model, task, AUTO, RATES[0], seed, *CHOSEN, whole_every=every) for every in (SPARED, 0))
    for seed in some:  # few layers may want a higher rate
        yield from (Run(model, task, arm, RATES[1], seed, *CHOSEN) for task in ALL_TASKS for arm in FEWER)
    yield from (Run(model, task, "thin", RATES[0], seed, *CHOSEN) for seed in some for task in ALL_TASKS)


def best_beta(results: list[dict[str, Any]]) -> float | None:
    """The weight with the highest sum of what was learned and the mean of what was kept."""
    reached = {row["run"]: row["after"] for row in results}
    scores = {}
    for beta in BETAS:
        after = reached.get(Run("planted", WEIGHED_ON, WEIGHED, LONG_RATE, 0, SHARE, beta).key())
        if after is None:
            return None
        scores[beta] = learned_and_kept(after)
    return max(scores, key=lambda beta: scores[beta])


def best_rate(results: list[dict[str, Any]], model: str) -> float | None:
    """The rate with the highest mean accuracy of full LoRA and three layers on the tasks that set it."""
    means = {}
    for rate in RATES:
        wanted = {Run(model, task, arm, rate, 0, 0.0).key() for task in SET_ON for arm in RATED}
        reached = [share(row["after"][NEW]) for row in results if row["run"] in wanted]
        if len(reached) < len(wanted):
            return None
        means[rate] = float(np.mean(reached))
    return max(means, key=lambda rate: means[rate])


def learned_and_kept(after: Mapping[str, str]) -> float:
    """The new skill plus the mean of the old ones, each a share of right answers."""
    return share(after[NEW]) + float(np.mean([share(digits) for name, digits in after.items() if name != NEW]))


def share(digits: str) -> float:
    """Share of right answers."""
    return digits.count("1") / len(digits)
