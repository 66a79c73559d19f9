"""Which layers to train? Arms on tasks of each kind of shift, in one process, resumable.

    python -m experiments.layers.run --out runs/layers                     # the planted model
    python -m experiments.layers.run --out runs/layers --model twin=runs/twin/weights --map runs/twin/map

Stages, in this order, each finished before the next:
1. rates: both learning rates for full and for three layers, on the two tasks that set constants.
2. screen: arms on every task, one seed, no replay, at the rate that stage 1 found for their kind.
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
from pathlib import Path
from typing import Any

import numpy as np

from experiments.layers.arms import Arm, arm_of
from experiments.layers.bed import NEW, Bed, bed_of
from experiments.layers.loop import Schedule, adapted, batches, fit
from experiments.layers.tasks import TASKS
from vfl.functionmap import FunctionMap
from vfl.train.adapter.lora import build_lora

logger = logging.getLogger(__name__)

SET_ON = ("roman", "poster")  # learning rates and constants are chosen on these; the others judge
JUDGED_ON = ("cells", "worn", "dark", "counts")  # letters has its own table in recipes/micro/README.md
RATES = (2e-3, 5e-3)
EVERYWHERE = ("full", "thin", "attention", "mlp")  # arms that train all layers
KINDS = {"all layers": ("full",), "few layers": ("gradient",)}
FIRST = ("full", "function", "gradient", "thin", "protect", "random 0", "uniform")
SECOND = ("reversed", "attention", "half", "warmup", "similarity", "mlp", "lowest", "fisher", "random 1", "random 2")
CONFIRMED = ("full", "half", "function", "thin")
SHARE = 0.1
STEPS, BATCH = 120, 6
LONGER = dict.fromkeys(("poster", "cells", "dark", "counts"), 240)  # steps of tasks that no arm learns in so few


@dataclass(frozen=True)
class Run:
    """One training run."""

    model: str
    task: str
    arm: str
    rate: float
    seed: int
    replay: float

    def key(self) -> str:
        return json.dumps(asdict(self))


def planned(model: str, rates: dict[str, float] | None, seeds: int) -> Iterator[Run]:
    """Runs in the order in which they decide most; those after the rates only once these are known."""
    for task in SET_ON:
        for arms in KINDS.values():
            for arm in arms:
                yield from (Run(model, task, arm, rate, 0, 0.0) for rate in RATES)
    if rates is None:
        return

    def run(task: str, arm: str, seed: int, replay: float) -> Run:
        return Run(model, task, arm, rates["all layers" if arm in EVERYWHERE else "few layers"], seed, replay)

    tasks = (*SET_ON, *JUDGED_ON)
    yield from (run(task, arm, 0, 0.0) for task in tasks for arm in FIRST)
    yield from (run(task, arm, 0, SHARE) for task in tasks for arm in CONFIRMED)
    yield from (run(task, arm, 0, 0.0) for task in tasks for arm in SECOND)
    for seed in range(1, seeds):
        yield from (run(task, arm, seed, SHARE) for task in tasks for arm in CONFIRMED)
        yield from (run(task, arm, seed, 0.0) for task in tasks for arm in CONFIRMED)


def best_rates(results: list[dict[str, Any]], model: str) -> dict[str, float] | None:
    """For each kind of arm the rate with the highest accuracy on the tasks that set constants."""
    found = {}
    for kind, arms in KINDS.items():
        means = {}
        for rate in RATES:
            wanted = {Run(model, task, arm, rate, 0, 0.0).key() for task in SET_ON for arm in arms}
            reached = [share(row["after"][NEW]) for row in results if row["run"] in wanted]
            if len(reached) < len(wanted):
                return None
            means[rate] = float(np.mean(reached))
        found[kind] = max(means, key=lambda rate: means[rate])
    return found


def share(digits: str) -> float:
    """Share of right answers."""
    return digits.count("1") / len(digits)


def train(bed: Bed, run: Run, arm: Arm) -> dict[str, Any]:
    """One run: losses, seconds of a step, answers after it."""
    rows = bed.mixed(run.task, run.replay, run.seed)
    schedule = Schedule(LONGER.get(run.task, STEPS), BATCH, run.rate)
    config = build_lora(bed.vlm.model, arm.layers, arm.lora())
    with adapted(bed.vlm, config, run.seed) as model:
        parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        start = time.process_time()
        losses = fit(bed.vlm, model, rows, batches(len(rows), schedule, run.seed), schedule, arm.multipliers)
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
    parser.add_argument("--dry", action="store_true", help="only say what is left")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    name, _, folder = options.model.partition("=")
    fmap = FunctionMap.load(options.map)
    path = options.out / "results.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    results = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    beds: dict[str, Bed] = {}
    while True:
        done = {row["run"] for row in results}
        rates = best_rates(results, name)
        left = [run for run in planned(name, rates, options.seeds) if run.key() not in done]
        if options.dry or not left:
            print(f"{len(done)} runs done, {len(left)} left; rates {rates}")
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
            same = json.dumps([run.model, run.task, arm.key(), run.rate, run.seed, run.replay])
            result = next((row for row in results if row.get("same") == same), None) or train(bed, run, arm)
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
