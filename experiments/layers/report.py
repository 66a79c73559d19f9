"""The tables of the layer experiment, from whatever runs are there.

    python -m experiments.layers.report --out runs/layers

Writes tables.md and tables.json. `new` is the share of right answers on the task's own test, `others` the mean of the
functions that the task is not about, `own` the function that it is about, as it was asked before. Intervals of `new`
are Wilson's over its items at one seed; with several seeds the mean is given and n.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from experiments.layers.bed import NEW
from experiments.layers.plan import FIRST, SECOND, kept_sums, share
from experiments.layers.tasks import TASKS
from vfl.functionmap import FunctionMap
from vfl.io.layers import layer_list
from vfl.stats import wilson
from vfl.testbeds.micro.questions import FUNCTIONS
from vfl.train.layers.shift import shift_of


@dataclass(frozen=True)
class Cell:
    """An arm on a task, over seeds; `own` and `others` are None where the task is about every function."""

    task: str
    arm: str
    rate: float
    replay: float
    seeds: int
    layers: tuple[int, ...]
    parameters: int
    new: float
    low: float
    high: float
    own: float | None
    others: float | None
    step: float


def cells(results: Sequence[dict[str, Any]], model: str) -> list[Cell]:
    """Every arm on every task, rate and replay that was run."""
    runs: dict[tuple[str, str, float, float], list[dict[str, Any]]] = {}
    for row in results:
        if not row["run"].startswith("{") or "after" not in row:
            continue
        run = json.loads(row["run"])
        if run["model"] == model:
            arm = run["arm"] + (f", KL {run['beta']:g}" if "beta" in run else "")
            arm += ", favour" if run.get("favour") else ""
            arm += _backward(run.get("whole_every"))
            runs.setdefault((run["task"], arm, run["rate"], run["replay"]), []).append(row)
    return [_cell(*key, rows) for key, rows in runs.items()]


def _cell(task: str, arm: str, rate: float, replay: float, rows: Sequence[dict[str, Any]]) -> Cell:
    digits = "".join(row["after"][NEW] for row in rows)
    low, high = map(float, wilson(np.array(digits.count("1")), np.array(len(digits))))
    old = TASKS[task].old
    others = [name for name in FUNCTIONS if name != old]
    return Cell(
        task,
        arm,
        rate,
        replay,
        len(rows),
        tuple(rows[0]["layers"]),
        rows[0]["parameters"],
        share(digits),
        low,
        high,
        None if old is None else mean(share(row["after"][old]) for row in rows),
        None if old is None else mean(share(row["after"][name]) for row in rows for name in others),
        median(row["step_cpu_seconds"] for row in rows),
    )


def arms_table(found: Iterable[Cell], arms: Sequence[str], rate: float, replay: float) -> str:
    """A line an arm: new / own / others of each task, and a step's time over full's on the same task."""
    table = {(cell.task, cell.arm): cell for cell in found if cell.rate == rate and cell.replay == replay}
    tasks = [name for name in TASKS if any(task == name for task, _ in table)]
    lines = [_line(["arm", "parameters", "step", *tasks]), _line(["---"] * (3 + len(tasks)))]
    for arm in arms:
        mine = {task: table[task, arm] for task in tasks if (task, arm) in table}
        if not mine:
            continue
        steps = [cell.step / table[task, "full"].step for task, cell in mine.items() if (task, "full") in table]
        counts = sorted({cell.parameters for cell in mine.values()})
        size = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,}–{counts[-1]:,}"
        step = f"{median(steps):.2f}" if steps else ""
        lines.append(_line([arm, size, step, *(_numbers(mine.get(task)) for task in tasks)]))
    return "\n".join(lines)


def layers_table(found: Sequence[Cell], arms: Sequence[str]) -> str:
    """Which layers each arm had."""
    table = {(cell.task, cell.arm): cell for cell in found}
    tasks = [name for name in TASKS if any(task == name for task, _ in table)]
    lines = [_line(["arm", *tasks]), _line(["---"] * (1 + len(tasks)))]
    for arm in arms:
        if any((task, arm) in table for task in tasks):
            mine = [layer_list(table[task, arm].layers) if (task, arm) in table else "" for task in tasks]
            lines.append(_line([arm, *mine]))
    return "\n".join(lines)


def shift_table(found: Sequence[Cell], scores: Path, model: str, fmap: FunctionMap, rate: float) -> str:
    """Where the gradient lies, and the arm of equal parameters that did best."""
    heads = ["task", "kind", "reads at", "below", "at", "above", "densest", "best arm of equal parameters"]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for name, task in TASKS.items():
        path = scores / f"{model}-{name}.json"
        mine = [
            c for c in found if c.task == name and c.rate == rate and c.replay == 0 and c.arm not in ("full", "half")
        ]
        if not path.exists() or not mine:
            continue
        shift = shift_of(json.loads(path.read_text())["gradient"], fmap.layers_of(task.functions), task.functions)
        parts = [f"{100 * part:.0f} %" for part in (shift.below, shift.at, shift.above)]
        most = max(cell.new for cell in mine)
        best = ", ".join(f"{c.arm} ({layer_list(c.layers)})" for c in mine if c.new == most)
        reads = layer_list(shift.reading)
        lines.append(_line([name, task.shift, reads, *parts, shift.densest, f"{best}: {100 * most:.0f}"]))
    return "\n".join(lines)


def _backward(whole_every: int | None) -> str:
    """What an arm is called for where its backward pass ends."""
    if whole_every is None:
        return ""
    return ", after the image" + (f", one step in {whole_every} whole" if whole_every else "")


def _numbers(cell: Cell | None) -> str:
    if cell is None:
        return ""
    text = f"{100 * cell.new:.0f} ({100 * cell.low:.0f}–{100 * cell.high:.0f})"
    if cell.own is not None and cell.others is not None:
        text += f" / {100 * cell.own:.0f} / {100 * cell.others:.0f}"
    return text if cell.seeds == 1 else f"{text}, n {cell.seeds}"


def _line(entries: Sequence[str]) -> str:
    return "| " + " | ".join(entries) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/layers"))
    parser.add_argument("--results", type=Path, help="default: results.jsonl of --out")
    parser.add_argument("--model", default="planted")
    parser.add_argument("--map", type=Path, default=Path("recipes/micro/map.json"))
    options = parser.parse_args()
    path = options.results or options.out / "results.jsonl"
    results = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = cells(results, options.model)
    arms = list(dict.fromkeys([*FIRST, *SECOND, *sorted(cell.arm for cell in found)]))
    texts = []
    for rate in sorted({cell.rate for cell in found}):
        for replay in sorted({cell.replay for cell in found if cell.rate == rate}):
            texts += [f"Learning rate {rate:g}, replay {replay:.0%}: new / own / others", ""]
            texts += [arms_table(found, arms, rate, replay), ""]
    plain = [cell for cell in found if not cell.replay]
    texts += ["Layers", "", layers_table(plain, arms), ""]
    rate = max({cell.rate for cell in found}, key=lambda each: sum(cell.rate == each for cell in found))
    fmap = FunctionMap.load(options.map)
    for (part, beta, favour), total in kept_sums(results).items():
        held = "" if beta is None else f", KL {beta:g}"
        texts.append(f"- {part:.0%} old rows{held}{', favour' if favour else ''}: {total:.2f}")
    texts += ["Shift", "", shift_table(found, options.out / "scores", options.model, fmap, rate), ""]
    before = {row["run"]: {name: share(digits) for name, digits in row["after"].items()}
              for row in results if not row["run"].startswith("{")}  # fmt: skip
    name = path.with_suffix("").name.replace("results", "tables")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{name}.md").write_text("\n".join(texts), encoding="utf-8")
    content = {"before": before, "cells": [vars(cell) for cell in found]}
    (options.out / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print("\n".join(texts))


if __name__ == "__main__":
    main()
