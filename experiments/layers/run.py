"""Which layers to train? Arms on tasks of each kind of shift, in one process, resumable.

    python -m experiments.layers.run --out runs/layers                     # the planted model
    python -m experiments.layers.run --out runs/layers --long              # fewer arms, twice the steps
    python -m experiments.layers.run --out runs/layers --judge             # what chose nothing: other tasks
    python -m experiments.layers.run --out runs/layers --judge --model twin=experiments/twin/weights \
        --map experiments/twin/map.json                                    # and a model whose layers nobody planted
    python -m experiments.layers.run --out runs/layers --anchors           # old rows held by a KL term, not replayed
    python -m experiments.layers.run --out runs/layers --kept              # ways to keep the old
    python -m experiments.layers.run --out runs/layers --confirm           # the best of them on what chose nothing
    python -m experiments.layers.run --out runs/layers-smol --pretrained --model smol --map recipes/smol/map.json

Stages, in this order, each finished before the next:
1. rates: both learning rates for full LoRA and for three layers, on the two tasks that set it.
2. screen: arms on every task, one seed, no replay, at the rate that did best in stage 1.
3. the arms that matter with replay, one seed; then the rest of the screen; then both with further seeds.

Each run is a line of results.jsonl. An interrupted experiment goes on where it stopped; `experiments.layers.report`
makes the tables from whatever is there. Processes side by side take other tasks (`--task`), each with an `--out` of its
own; their results, one after the other, are those of one process. Not in stage 1, nor with `--anchors`: runs of some
tasks decide there what is run on all.
"""

import argparse
import json
import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.layers.arms import KEPT, SCORED_ARMS, Arm, arm_of
from experiments.layers.bed import Bed, bed_of
from experiments.layers.loop import Schedule, adapted, batches, fit, loss_of
from experiments.layers.plan import (
    BATCH,
    LONG_STEPS,
    PRETRAINED_STEPS,
    STEPS,
    Run,
    best_beta,
    best_rate,
    planned,
    planned_anchors,
    planned_confirmed,
    planned_finish,
    planned_judged,
    planned_kept,
    planned_long,
    planned_pretrained,
    share,
)
from experiments.layers.tasks import TASKS
from vfl.functionmap import FunctionMap
from vfl.train.adapter.lora import build_lora

logger = logging.getLogger(__name__)


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
        losses = fit(bed.vlm, model, rows, order, schedule, arm.multipliers, arm.freeze, loss, run.whole_every)
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
    parser.add_argument(
        "--model", default="planted", help="name=folder of another model, or smol; default: the embedded one"
    )
    parser.add_argument("--map", type=Path, default=Path("recipes/micro/map.json"))
    parser.add_argument("--seeds", type=int, default=3, help="of the confirmation")
    stage = parser.add_mutually_exclusive_group()
    stage.add_argument("--long", action="store_true", help="the second look, into results-240.jsonl")
    stage.add_argument("--judge", action="store_true", help="as long, on what set nothing; into the same file")
    stage.add_argument("--anchors", action="store_true", help="KL on old rows beside replay; into the same file")
    stage.add_argument("--kept", action="store_true", help="ways to keep old skills; into the same file")
    stage.add_argument("--pretrained", action="store_true", help="few steps, on a model around a pretrained decoder")
    stage.add_argument("--confirm", action="store_true", help="the best of these on what chose nothing")
    stage.add_argument("--finish", action="store_true", help="the two finalists by seeds, and every other rule as auto")
    parser.add_argument("--task", action="append", choices=list(TASKS), help="these alone; may be given several times")
    parser.add_argument("--steps", type=int, help="of a run, instead of the stage's own; into results-STEPS.jsonl")
    parser.add_argument("--until", type=int, help="so many runs, then it stops")
    parser.add_argument("--dry", action="store_true", help="only say what is left")
    options = parser.parse_args()
    long = options.long or options.judge or options.anchors or options.kept or options.confirm or options.finish
    if options.task and (options.anchors or not (options.pretrained or long)):
        parser.error(
            "--task goes with --long, --judge, --kept, --confirm, --finish or --pretrained: "
            "the rate is chosen on all tasks"
        )
    logging.basicConfig(level=logging.WARNING)
    name, _, folder = options.model.partition("=")
    weights = folder or (None if name == "planted" else name)
    fmap = FunctionMap.load(options.map)
    steps = options.steps or (PRETRAINED_STEPS if options.pretrained else LONG_STEPS if long else STEPS)
    path = options.out / ("results.jsonl" if steps == STEPS else f"results-{steps}.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    results = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    beds: dict[str, Bed] = {}
    trained = 0
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
        if options.finish:
            plan = planned_finish(name, options.seeds)
        if options.pretrained:
            plan = planned_pretrained(name, options.seeds)
        if options.anchors:
            plan = planned_anchors(name, best_beta(results), options.seeds)
        left = [run for run in plan if run.key() not in done and (options.task is None or run.task in options.task)]
        if options.dry or not left or trained == options.until:
            print(f"{len(done)} runs done, {len(left)} left; rate {rate}")
            return
        run = left[0]
        bed = bed_of(name, run.task, weights, options.out, beds)
        scores = bed.scores(name, run.task) if run.arm.removesuffix(KEPT) in SCORED_ARMS else {}
        arm = arm_of(run.arm, TASKS[run.task], scores, fmap, run.seed)
        before_key = f"{name} {run.task}"
        if before_key not in done:
            results.append({"run": before_key, "after": bed.correct(run.task)})
            _append(path, results[-1])
        if arm is None:
            result: dict[str, Any] = {"left_out": True}
        else:
            held: list[Any] = [] if run.beta is None else [run.beta]
            held += ["favour"] if run.favour else []
            held += [] if run.whole_every is None else [f"whole every {run.whole_every}"]
            same = json.dumps([run.model, run.task, arm.key(), run.rate, run.seed, run.replay, *held])
            result = next((row for row in results if row.get("same") == same), None) or train(bed, run, arm, steps)
            result = result | {"same": same}
        results.append({**result, "run": run.key()})
        _append(path, results[-1])
        trained += 1
        if arm is not None:
            print(f"{run.key()} { ({g: round(share(d), 2) for g, d in result['after'].items()}) }", flush=True)


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
