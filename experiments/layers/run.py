"""Which layers to train? Arms on tasks of each kind of shift, in one process, resumable.

    python -m experiments.layers.run --out runs/layers                     # the planted model
    python -m experiments.layers.run --out runs/layers --long              # fewer arms, twice the steps
    python -m experiments.layers.run --out runs/layers --judge             # what chose nothing: other tasks
    python -m experiments.layers.run --out runs/layers --judge --model twin=experiments/twin/weights \
        --map experiments/twin/map.json                                    # and a model whose layers nobody planted
    python -m experiments.layers.run --out runs/layers --anchors           # old rows held by a KL term, not replayed

Stages, in this order, each finished before the next:
1. rates: both learning rates for full LoRA and for three layers, on the two tasks that set it.
2. screen: arms on every task, one seed, no replay, at the rate that did best in stage 1.
3. the arms that matter with replay, one seed; then the rest of the screen; then both with further seeds.

Each run is a line of results.jsonl. An interrupted experiment goes on where it stopped; `experiments.layers.report`
makes the tables from whatever is there.
"""

import argparse
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.layers.arms import Arm, arm_of
from experiments.layers.bed import NEW, Bed, bed_of
from experiments.layers.loop import Schedule, adapted, batches, fit, loss_of
from experiments.layers.tasks import TASKS
from vfl.functionmap import FunctionMap
from vfl.train.adapter.lora import build_lora

logger = logging.getLogger(__name__)

SET_ON = ("roman", "poster")  # the learning rate is chosen on these; the others judge
JUDGED_ON = ("cells", "worn", "dark")
RATES = (2e-3, 5e-3)
RATED = ("full", "gradient")
FIRST = ("full", "function", "gradient", "thin", "protect", "random 0", "uniform")
SECOND = ("half", "reversed", "attention", "warmup", "similarity", "mlp", "lowest", "fisher", "random 1", "random 2")
REPLAYED = ("full", "half", "function")
SHARE, FIFTH = 0.1, 0.2
STEPS, BATCH = 120, 6
# The second look: twice the steps and the other rate, on a task that no arm had learned and where forgetting was large.
LONG_STEPS, LONG_RATE, LONG_TASKS = 240, 5e-3, ("cells", "poster")
FINAL = ("full", "thin", "half")
JUDGES = ("letters", "counts", "dark", "roman")
# Old rows as anchors: the weight of their KL term is chosen for one arm on one task of the planted model, seed 0.
BETAS, WEIGHED, WEIGHED_ON = (1.0, 3.0, 10.0), "thin", "poster"
HELD, HELD_ON = ("full", "thin"), ("cells", "dark")
# Ways to keep the old: share of old rows, weight of their KL term, whether half of them are of the task's own function.
KEPT = (
    (SHARE, None, None), (SHARE, None, True), (SHARE, 3.0, None), (SHARE, 3.0, True),
    (FIFTH, None, None), (FIFTH, None, True), (FIFTH, 3.0, True),
)  # fmt: skip
KEPT_ON = (("cells", 0), ("poster", 0), ("dark", 0), ("dark", 1), ("cells", 1))
CHOSEN = (SHARE, 3.0, True)  # by `best_kept`
FEW = ("gradient", "half", "protect", "random 0")
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
    for task, seed in KEPT_ON[2:]:
        yield from (Run(model, task, "thin", LONG_RATE, seed, *kept) for kept in KEPT)


def best_kept(results: list[dict[str, Any]]) -> tuple[float, float | None, bool | None] | None:
    """The way with the highest sum over tasks of what `thin` learned and the mean of what it kept."""
    reached = {row["run"]: row["after"] for row in results}
    sums = {}
    for kept in KEPT:
        scores: dict[str, list[float]] = {}
        for task, seed in KEPT_ON:
            after = reached.get(Run("planted", task, "thin", LONG_RATE, seed, *kept).key())
            if after is None:
                return None
            old = [share(digits) for name, digits in after.items() if name != NEW]
            scores.setdefault(task, []).append(share(after[NEW]) + float(np.mean(old)))
        sums[kept] = sum(float(np.mean(each)) for each in scores.values())
    return max(sums, key=lambda kept: sums[kept])


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
    for seed in range(2):  # which half of it stands in the way of finer counts?
        yield from (Run(model, "counts", "thin", LONG_RATE, seed, *kept) for kept in KEPT[:3])
    for seed in range(seeds):
        yield from (Run(model, task, "function", LONG_RATE, seed, *CHOSEN) for task in judged)


def best_beta(results: list[dict[str, Any]]) -> float | None:
    """The weight with the highest sum of what was learned and the mean of what was kept."""
    reached = {row["run"]: row["after"] for row in results}
    scores = {}
    for beta in BETAS:
        after = reached.get(Run("planted", WEIGHED_ON, WEIGHED, LONG_RATE, 0, SHARE, beta).key())
        if after is None:
            return None
        kept = [share(digits) for name, digits in after.items() if name != NEW]
        scores[beta] = share(after[NEW]) + float(np.mean(kept))
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


def share(digits: str) -> float:
    """Share of right answers."""
    return digits.count("1") / len(digits)


def train(bed: Bed, run: Run, arm: Arm, steps: int) -> dict[str, Any]:
    """One run: losses, seconds of a step, answers after it."""
    rows = bed.mixed(run.task, run.replay, run.seed, hold=run.beta is not None, favour=bool(run.favour))
    schedule = Schedule(steps, BATCH, run.rate)
    config = build_lora(bed.vlm.model, arm.layers, arm.lora())
    with adapted(bed.vlm, config, run.seed) as model:
        parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        start = time.process_time()
        order = batches(len(rows), schedule, run.seed)
        loss = partial(loss_of, beta=run.beta or 0.0)
        losses = fit(bed.vlm, model, rows, order, schedule, arm.multipliers, arm.freeze, loss)
        seconds = time.process_time() - start
        after = bed.correct(run.task)
    return {
        "layers": arm.layers,
        "rank": arm.rank,
        "modules": arm.modules,
        "parameters": parameters,
        "step_cpu_seconds": seconds / schedule.steps,
        "loss": float(np.mean(losses[-10:])),
        "after": after,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/layers"))
    parser.add_argument("--model", default="planted", help="name=folder of another model; default: the embedded one")
    parser.add_argument("--map", type=Path, default=Path("recipes/micro/map.json"))
    parser.add_argument("--seeds", type=int, default=3, help="of the confirmation")
    parser.add_argument("--long", action="store_true", help="the second look, into results-240.jsonl")
    parser.add_argument("--judge", action="store_true", help="as long, on what set nothing; into the same file")
    parser.add_argument("--anchors", action="store_true", help="KL on old rows beside replay; into the same file")
    parser.add_argument("--kept", action="store_true", help="ways to keep old skills; into the same file")
    parser.add_argument("--confirm", action="store_true", help="the best of these on what chose nothing")
    parser.add_argument("--until", type=int, help="runs after which it stops")
    parser.add_argument("--dry", action="store_true", help="only say what is left")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    name, _, folder = options.model.partition("=")
    fmap = FunctionMap.load(options.map)
    long = options.long or options.judge or options.anchors or options.kept or options.confirm
    steps = LONG_STEPS if long else STEPS
    path = options.out / (f"results-{steps}.jsonl" if long else "results.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    results = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    beds: dict[str, Bed] = {}
    begun = len(results)
    while True:
        done = {row["run"] for row in results}
        rate = best_rate(results, name)
        plan = planned(name, rate, options.seeds)
        if long:
            plan = planned_judged(name) if options.judge else planned_long(name)
        if options.kept:
            plan = planned_kept(name)
        if options.confirm:
            plan = planned_confirmed(name, options.seeds)
        if options.anchors:
            plan = planned_anchors(name, best_beta(results), options.seeds)
        left = [run for run in plan if run.key() not in done]
        if options.dry or not left or (options.until and len(results) - begun >= options.until):
            print(f"{len(done)} runs done, {len(left)} left; rate {rate}")
            return
        run = left[0]
        bed = bed_of(name, run.task, Path(folder) if folder else None, options.out, beds)
        arm = arm_of(run.arm, TASKS[run.task], bed.scores(name, run.task), fmap, run.seed)
        before_key = f"{name} {run.task}"
        if before_key not in done:
            results.append({"run": before_key, "after": bed.correct(run.task)})
            _append(path, results[-1])
        if arm is None:
            result: dict[str, Any] = {"left_out": True}
        else:
            held: list[Any] = [] if run.beta is None else [run.beta]
            held += ["favour"] if run.favour else []
            same = json.dumps([run.model, run.task, arm.key(), run.rate, run.seed, run.replay, *held])
            result = next((row for row in results if row.get("same") == same), None) or train(bed, run, arm, steps)
            result = result | {"same": same}
        results.append({**result, "run": run.key()})
        _append(path, results[-1])
        if arm is not None:
            print(f"{run.key()} { ({g: round(share(d), 2) for g, d in result['after'].items()}) }", flush=True)


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
