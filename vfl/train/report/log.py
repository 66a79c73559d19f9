"""metrics.jsonl read back: losses, accuracies per group and metrics, each by step."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vfl.errors import InputError
from vfl.train.report.before_after import Change, Rate

KINDS = ("train", "evaluation", "metric")
NOT_DRAWN = ("step", "epoch", "kind")
NOT_FINITE = ("nan", "inf", "-inf")  # as text: JSON has no such numbers


@dataclass(frozen=True)
class Group:
    """Accuracy of a group at one step."""

    rate: Rate
    n: int
    forgetting: float | None  # accuracy at step 0 minus this one


@dataclass(frozen=True)
class Curve:
    """One number for each place of an axis (a decoder layer, or a count) at one step; None where there is none."""

    axis: str
    at: tuple[float, ...]
    value: tuple[float | None, ...]


@dataclass(frozen=True)
class TrainingLog:
    """Everything by step, ascending."""

    train: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    evaluations: list[tuple[int, dict[str, Group]]] = field(default_factory=list)
    scalars: dict[str, list[tuple[int, float]]] = field(default_factory=dict)  # "metric: number" by step
    curves: dict[str, list[tuple[int, Curve]]] = field(default_factory=dict)  # "metric: curve" by step

    def changes(self) -> list[Change]:
        """Every group at step 0, where it was measured, and at the last evaluation."""
        if not self.evaluations:
            return []
        (first_step, first), (last_step, last) = self.evaluations[0], self.evaluations[-1]
        before = first if first_step == 0 else {}
        after = last if last_step > 0 else {}
        items = {name: group.n for name, group in {**before, **after}.items()}
        rates = [{name: group.rate for name, group in groups.items()} for groups in (before, after)]
        return [Change(name, n, rates[0].get(name), rates[1].get(name)) for name, n in items.items()]


def read_log(path: Path) -> TrainingLog:
    """Read metrics.jsonl; a missing file is an empty log, and so is the last line of a run that was killed in it.

    Raises:
        InputError: names the line that is not one of ours.
    """
    log = TrainingLog()
    if not path.is_file():
        return log
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            _add(log, json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number == len(lines):  # no line break behind it: it was not written to its end
                break
            raise InputError(
                f"{path} line {number} is no line of a training log ({type(error).__name__}: {error}); expected an "
                f"object with a step and a kind ({', '.join(KINDS)}). Remove the line."
            ) from None
    return log


def _add(log: TrainingLog, row: dict[str, Any]) -> None:
    step, kind = int(row["step"]), row["kind"]
    if kind == "train":
        numbers = {key: float(value) for key, value in row.items() if key not in NOT_DRAWN and _is_number(value)}
        log.train.append((step, numbers))
    elif kind == "evaluation":
        log.evaluations.append((step, {name: _group(group) for name, group in row["groups"].items()}))
    elif kind == "metric":
        for name, value in _values(row["result"]):
            label = f"{row['name']}: {name}" if name else str(row["name"])
            if isinstance(value, Curve):
                log.curves.setdefault(label, []).append((step, value))
            else:
                log.scalars.setdefault(label, []).append((step, value))
    else:
        raise ValueError(f"kind {kind!r}")


def _group(group: dict[str, Any]) -> Group:
    rate = Rate(float(group["accuracy"]), float(group["low"]), float(group["high"]))
    return Group(rate, int(group["n"]), group.get("forgetting"))


def _values(result: dict[str, Any]) -> Iterator[tuple[str, float | Curve]]:
    """Numbers and curves of a metric's result (vfl/metrics/result.py says what it holds)."""
    for name, scalar in result.get("scalars", {}).items():
        if scalar["value"] is not None:
            yield name, float(scalar["value"])
    for name, curve in result.get("curves", {}).items():
        yield name, Curve(str(curve["axis"]), tuple(curve["at"]), tuple(curve["value"]))


def _is_number(value: Any) -> bool:
    return value in NOT_FINITE or (isinstance(value, int | float) and not isinstance(value, bool))
