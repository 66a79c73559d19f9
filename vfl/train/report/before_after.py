"""Accuracy before and after training, one row a group: a function's probe pairs or an evaluation set."""

from dataclasses import dataclass

from vfl.evaluate.result import Evaluation
from vfl.evaluate.summary import Accuracy
from vfl.report.words import signed


@dataclass(frozen=True)
class Rate:
    """A share, or a difference of two, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Change:
    """One group before and after; `difference` is paired over items where they are known."""

    group: str
    n: int
    before: Rate | None
    after: Rate | None
    difference: Rate | None = None

    @property
    def gain(self) -> float | None:
        """After minus before; None without both."""
        if self.difference is not None:
            return self.difference.value
        return self.after.value - self.before.value if self.before and self.after else None


def changes_of(evaluation: Evaluation) -> list[Change]:
    """An evaluation after training against its baseline; without one there is no `before`."""
    before = evaluation.baseline.groups if evaluation.baseline else {}
    differences = evaluation.differences or {}
    changes = []
    for name in {**before, **evaluation.groups}:
        a, b, change = before.get(name), evaluation.groups.get(name), differences.get(name)
        difference = Rate(change.difference, change.low, change.high) if change else None
        n = next(accuracy.n for accuracy in (b, a) if accuracy)
        changes.append(Change(name, n, _rate(a), _rate(b), difference))
    return changes


def _rate(accuracy: Accuracy | None) -> Rate | None:
    return Rate(accuracy.accuracy, accuracy.low, accuracy.high) if accuracy else None


def points(rate: Rate | None) -> str:
    """(.8, .7, .9) -> "80.0 % (70.0–90.0)"."""
    if rate is None:
        return "–"
    return f"{100 * rate.value:.1f}\u00a0% ({100 * rate.low:.1f}–{100 * rate.high:.1f})"


def gained(change: Change) -> str:
    """The change in percentage points, with its interval where there is one: "+12.5 (4.0–20.1)"."""
    if change.gain is None:
        return "–"
    text = signed(100 * change.gain, 1)
    if change.difference is None:
        return text
    return f"{text} ({signed(100 * change.difference.low, 1)} to {signed(100 * change.difference.high, 1)})"
