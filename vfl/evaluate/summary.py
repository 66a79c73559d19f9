"""Accuracy per group with its 95 % interval, and paired differences between two runs over the same items.

Intervals are percentile bootstrap intervals over items. For a share of n items the bootstrap distribution is known: a
resample's count is Binomial(n, share), so its percentiles are taken from there instead of being simulated. A paired
difference resamples items together with both of their answers; each item counts +1 (gained), 0 or -1 (lost), so a
resample's counts are multinomial, which is drawn with a fixed seed. Where all items agree, a bootstrap has nothing to
resample and would claim certainty; Wilson's score interval takes its place.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from vfl.errors import InputError
from vfl.evaluate.answers import Answered
from vfl.stats import wilson

LEVEL = (0.025, 0.975)
RESAMPLES = 20_000
SEED = 0


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers of a group and its 95 % interval."""

    n: int
    correct: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Accuracy after minus before over the same n items, its 95 % interval, and how many items changed."""

    n: int
    before: float
    after: float
    difference: float
    low: float
    high: float
    gained: int
    lost: int


def summarise(answered: Iterable[Answered]) -> dict[str, Accuracy]:
    """Accuracy of each group, in the order in which the groups first appear."""
    right: dict[str, list[bool]] = {}
    for answer in answered:
        right.setdefault(answer.group, []).append(answer.correct)
    return {group: accuracy_of(sum(outcomes), len(outcomes)) for group, outcomes in right.items()}


def cut_shares(answered: Iterable[Answered]) -> dict[str, float]:
    """The share of answers that came to no end within their bound, of each group that has some."""
    flags: dict[str, list[bool]] = {}
    for answer in answered:
        flags.setdefault(answer.group, []).append(answer.cut)
    return {group: sum(cut) / len(cut) for group, cut in flags.items() if any(cut)}


def accuracy_of(correct: int, n: int) -> Accuracy:
    """`correct` of `n` answers as a share with its interval."""
    if correct in (0, n):
        lows, highs = wilson(np.array([float(correct)]), np.array([float(n)]))
        low, high = float(lows[0]), float(highs[0])
    else:
        low, high = (float(binom.ppf(level, n, correct / n)) / n for level in LEVEL)
    return Accuracy(n, correct, correct / n, low, high)


def compare(before: Sequence[Answered], after: Sequence[Answered]) -> dict[str, Difference]:
    """Paired difference of each group between two runs that asked the same items.

    Raises:
        InputError: when they did not: names items that only one run has, or that were asked otherwise.
    """
    first = {answer.id: answer for answer in before}
    check_same(before, after)
    pairs: dict[str, list[tuple[bool, bool]]] = {}
    for answer in after:
        pairs.setdefault(answer.group, []).append((first[answer.id].correct, answer.correct))
    return {group: _difference(outcomes) for group, outcomes in pairs.items()}


def check_same(before: Sequence[Answered], after: Sequence[Answered]) -> None:
    """Raises InputError unless both runs asked the same items, as `compare` says."""
    check_ids((answer.id for answer in before), (answer.id for answer in after))
    first = {answer.id: answer for answer in before}
    others = [
        answer.id for answer in after if (answer.key, answer.group) != (first[answer.id].key, first[answer.id].group)
    ]
    if others:
        raise InputError(
            f"The two runs have items of the same name that differ ({len(others)}, such as {others[0]!r}: another "
            "question, image, right answer or group). Evaluate both with the same probes and data."
        )


def check_ids(before: Iterable[str], after: Iterable[str]) -> None:
    """Raises InputError unless the two runs have the same items by name."""
    first, second = dict.fromkeys(before), dict.fromkeys(after)
    only = {
        "baseline": [name for name in first if name not in second],
        "new": [name for name in second if name not in first],
    }
    differences = [
        f"{len(names)} are only in the {run} one (such as {', '.join(names[:3])})"
        for run, names in only.items()
        if names
    ]
    if differences:
        raise InputError(
            f"The baseline and the new run do not cover the same items: {'; '.join(differences)}. Evaluate both "
            "with the same probes and data."
        )


def _difference(pairs: list[tuple[bool, bool]]) -> Difference:
    n = len(pairs)
    gained = sum(after and not before for before, after in pairs)
    lost = sum(before and not after for before, after in pairs)
    low, high = _interval(gained, lost, n)
    return Difference(
        n=n,
        before=sum(before for before, _ in pairs) / n,
        after=sum(after for _, after in pairs) / n,
        difference=(gained - lost) / n,
        low=low,
        high=high,
        gained=gained,
        lost=lost,
    )


def _interval(gained: int, lost: int, n: int) -> tuple[float, float]:
    """95 % interval of (gained - lost) / n."""
    lows, highs = wilson(np.array([0.0, float(n)]), np.array([float(n), float(n)]))
    most_unseen, least_seen = float(highs[0]), float(lows[1])
    if not gained and not lost:  # no item changed: each kind of change may still be as frequent as Wilson's bound
        return -most_unseen, most_unseen
    if gained == n:
        return least_seen, 1.0
    if lost == n:
        return -1.0, -least_seen
    counts = np.random.default_rng(SEED).multinomial(n, [gained / n, lost / n, 1 - (gained + lost) / n], RESAMPLES)
    low, high = np.quantile((counts[:, 0] - counts[:, 1]) / n, LEVEL)
    return float(low), float(high)
