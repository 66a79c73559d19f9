"""From a method's scores to the layers it names, and how good these are.

A score names every layer whose mean over pairs is at least a share of the largest layer's. The share of each method is
the one with which it does best on the embedded model, the lowest of equals; it is judged on the others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vfl.stats import Floats

SHARES = tuple(round(0.05 * n, 2) for n in range(1, 20))
RESAMPLES = 200


@dataclass(frozen=True)
class Hits:
    """Layers of one or more functions, counted.

    Attributes:
        right: named and true.
        wrong: named, and neither true nor grey.
        true: how many there are to be named.
    """

    right: int = 0
    wrong: int = 0
    true: int = 0

    def __add__(self, other: "Hits") -> "Hits":
        return Hits(self.right + other.right, self.wrong + other.wrong, self.true + other.true)

    @property
    def precision(self) -> float:
        """Of the layers named, grey ones aside; NaN where none was."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else float("nan")

    @property
    def recall(self) -> float:
        """Of the true layers; NaN where there are none."""
        return self.right / self.true if self.true else float("nan")

    @property
    def f1(self) -> float:
        """2 right / (2 right + wrong + missed); 0 where nothing is right."""
        return 2 * self.right / (self.right + self.wrong + self.true) if self.right else 0.0


def hits(named: Iterable[int], truth: dict[str, Any]) -> Hits:
    """Of one function, against its entry `truth` in the results."""
    chosen, true, grey = set(named), set(truth["layers"]), set(truth["grey"])
    return Hits(len(chosen & true), len(chosen - true - grey), len(true))


def by_share(means: Floats, share: float) -> list[int]:
    """Layers of (L,) mean scores that reach this share of the largest; none where no score is positive."""
    top = means.max()
    return np.flatnonzero(means >= share * top).tolist() if top > 0 else []


def best_share(functions: Iterable[dict[str, Any]], method: str) -> float:
    """The share with which a method does best on a model's functions."""
    cells = [(np.mean(cell["scores"][method], axis=0), cell["truth"]) for cell in functions]

    def f1(share: float) -> float:
        return sum((hits(by_share(means, share), truth) for means, truth in cells), Hits()).f1

    return max(SHARES, key=lambda share: (f1(share), -share))


def best_possible(scores: Sequence[Sequence[float]], truth: dict[str, Any]) -> Hits:
    """The hits of naming as many layers as are true, the highest scores first: no rule can know how many."""
    means = np.mean(scores, axis=0)
    order = [layer for layer in np.argsort(-means, kind="stable").tolist() if means[layer] > 0]
    return hits(order[: len(truth["layers"])], truth)


def confidence(scores: Sequence[Sequence[float]], share: float, seed: int = 0) -> Floats:
    """(L,) in what share of resamples of the pairs each layer is named."""
    values = np.array(scores)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=RESAMPLES) / len(values)
    named = np.zeros(values.shape[1])
    for means in drawn @ values:
        named[by_share(means, share)] += 1 / RESAMPLES
    return named


def brier(probabilities: Floats, truth: dict[str, Any]) -> list[float]:
    """Squared errors of (L,) probabilities of being a true layer; grey ones left out."""
    target = np.zeros(len(probabilities))
    target[truth["layers"]] = 1.0
    kept = np.setdiff1d(np.arange(len(probabilities)), truth["grey"])
    return ((probabilities - target)[kept] ** 2).tolist()
