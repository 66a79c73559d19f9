"""What the arms of an experiment came to: accuracies with intervals over seeds and items, and what they cost.

Intervals resample seeds, and items within each seed, since both vary (two-level percentile bootstrap, 95 %). Arms of
one seed answer the same items after the same batches, so differences between arms resample them together. Where all
answers agree there is nothing to resample, so an accuracy's interval is never narrower than Wilson's over the items.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vfl.evaluate.result import read_evaluation
from vfl.io.atomic import replacing
from vfl.io.layers import layer_list
from vfl.stats import wilson
from vfl.train.arms.run import ArmRun
from vfl.train.preflight.facts import Preflight
from vfl.train.report.before_after import Rate, points

RESAMPLES = 2000


@dataclass(frozen=True)
class ArmRow:
    """One arm.

    Attributes:
        layers: of each seed, as text; one where all are equal.
        accuracy: after training, per group.
        against_full: accuracy minus that of arm `full`, per group; empty for `full`, or without it.
    """

    arm: str
    seeds: int
    layers: tuple[str, ...]
    parameters: int
    bytes: int
    accuracy: dict[str, Rate]
    against_full: dict[str, Rate]


@dataclass(frozen=True)
class ArmsTable:
    """The experiment; `before` is the base model's accuracy per group, `n` the items of each."""

    rows: tuple[ArmRow, ...]
    before: dict[str, float]
    n: dict[str, int]


def summarise_arms(runs: Sequence[ArmRun]) -> ArmsTable:
    """Read the finished runs."""
    arms = list(dict.fromkeys(run.arm for run in runs))
    correct = {arm: _correct([run for run in runs if run.arm == arm]) for arm in arms}
    first, _ = read_evaluation(runs[0].folder)
    groups = list(first.groups)
    rows = []
    for arm in arms:
        mine = [run for run in runs if run.arm == arm]
        flights = [Preflight.load(run.folder / "preflight.json") for run in mine]
        full = correct.get("full")
        rows.append(
            ArmRow(
                arm=arm,
                seeds=len(mine),
                layers=tuple(dict.fromkeys(layer_list(flight.arm.layers) for flight in flights)),
                parameters=flights[0].trainable_parameters,
                bytes=flights[0].trainable_bytes,
                accuracy={group: _accuracy(correct[arm][group]) for group in groups},
                against_full={}
                if full is None or arm == "full"
                else {group: _mean(correct[arm][group] - full[group]) for group in groups},
            )
        )
    before = {group: accuracy.accuracy for group, accuracy in first.baseline.groups.items()} if first.baseline else {}
    return ArmsTable(tuple(rows), before, {group: accuracy.n for group, accuracy in first.groups.items()})


def write_table(table: ArmsTable, out: Path) -> None:
    """arms.json and arms.md, each whole or not at all."""
    with replacing(out / "arms.md") as temporary:
        temporary.write_text(markdown(table), encoding="utf-8")
    content = {
        "schema": 1,
        "before": table.before,
        "n": table.n,
        "arms": [
            {
                "arm": row.arm,
                "seeds": row.seeds,
                "layers": list(row.layers),
                "parameters": row.parameters,
                "bytes": row.bytes,
                "accuracy": {group: vars(rate) for group, rate in row.accuracy.items()},
                "against_full": {group: vars(rate) for group, rate in row.against_full.items()},
            }
            for row in table.rows
        ],
    }
    with replacing(out / "arms.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def markdown(table: ArmsTable) -> str:
    """Two tables: what each arm is and reaches, and how it differs from full LoRA."""
    groups = list(table.n)
    head = [
        "arm",
        "layers",
        "seeds",
        "trained parameters",
        "bytes",
        *(f"{group} (n {table.n[group]})" for group in groups),
    ]
    before = [
        "before training",
        "",
        "",
        "",
        "",
        *(f"{100 * table.before[g]:.1f} %" if table.before else "" for g in groups),
    ]
    lines = [_line(head), _line(["---"] * len(head)), _line(before)]
    for row in table.rows:
        layers = row.layers[0] if len(row.layers) == 1 else "drawn for each seed"
        facts = [row.arm, layers, str(row.seeds), f"{row.parameters:,}", f"{row.bytes:,}"]
        lines.append(_line([*facts, *(points(row.accuracy[group]) for group in groups)]))
    compared = [row for row in table.rows if row.against_full]
    if compared:
        lines += [
            "",
            "Points of accuracy against full LoRA:",
            "",
            _line(["arm", *groups]),
            _line(["---"] * (len(groups) + 1)),
        ]
        for row in compared:
            cells = [
                f"{100 * change.value:+.1f} ({100 * change.low:+.1f} to {100 * change.high:+.1f})"
                for change in (row.against_full[group] for group in groups)
            ]
            lines.append(_line([row.arm, *cells]))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _correct(runs: Sequence[ArmRun]) -> dict[str, np.ndarray]:
    """Per group (seeds, items) of 0 or 1, items in one order."""
    rows_of_group: dict[str, list[list[float]]] = {}
    for run in runs:
        _, answered = read_evaluation(run.folder)
        by_group: dict[str, dict[str, float]] = {}
        for answer in answered:
            by_group.setdefault(answer.group, {})[answer.id] = float(answer.correct)
        for group, items in by_group.items():
            rows_of_group.setdefault(group, []).append([items[name] for name in sorted(items)])
    return {group: np.array(rows) for group, rows in rows_of_group.items()}


def _accuracy(right: np.ndarray) -> Rate:
    """Share of right answers of (seeds, items); seeds share their items, so only these count as independent."""
    drawn = _mean(right)
    items = np.array(right.shape[1], dtype=float)
    low, high = wilson(drawn.value * items, items)
    return Rate(drawn.value, min(drawn.low, float(low)), max(drawn.high, float(high)))


def _mean(values: np.ndarray) -> Rate:
    """Mean of (seeds, items) with its two-level bootstrap interval."""
    rng = np.random.default_rng(0)
    seeds, items = values.shape
    means = np.empty(RESAMPLES)
    for n in range(RESAMPLES):
        chosen = values[rng.integers(seeds, size=seeds)]
        # Seeds share their items, so one draw of items serves all.
        means[n] = chosen[:, rng.integers(items, size=items)].mean()
    low, high = np.quantile(means, (0.025, 0.975))
    return Rate(float(values.mean()), float(low), float(high))
