"""What every metric returns: plain data for JSON, each number with its 95 % interval and its number of samples.

    {"n": samples,
     "scalars": {name: {"value": x, "low": x, "high": x, "n": samples}},
     "curves": {name: {"axis": "layer", "at": [0, 1, ...], "value": [...], "low": [...], "high": [...], "n": samples}},
     "options": {everything that changes a number}}

A metric may add keys of its own (such as a table by layer and head). Numbers that do not exist are null.

Samples that share an image, or are the two images of a pair, are not independent: where `clusters` name them alike,
intervals are over clusters (the bootstrap draws whole clusters; Wilson's is `vfl.stats.clustered_wilson`). "n" counts
samples.

Legend: N samples, X points of a curve.
"""

import logging
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vfl.errors import InputError
from vfl.probes.asking import cut_warning
from vfl.probes.pair import Pair
from vfl.stats import Floats, cluster_totals, clustered_wilson

Result = dict[str, Any]

Clusters = Sequence[Hashable] | None

logger = logging.getLogger(__name__)

RESAMPLES = 1000
BOOTSTRAP_SEED = 0


def result(
    n: int,
    scalars: Mapping[str, Any],
    curves: Mapping[str, Any],
    options: Mapping[str, Any],
    **more: Any,
) -> Result:
    """A metric's result; options say how the intervals were made."""
    settled = {**options, "interval": "95 %", "bootstrap": {"resamples": RESAMPLES, "seed": BOOTSTRAP_SEED}}
    return {"n": n, "scalars": dict(scalars), "curves": dict(curves), "options": settled, **more}


def cluster_of(pair: Pair) -> Hashable:
    """What a pair's samples have in common: with the pairs of its group, or with other questions on its image."""
    return str(pair.path("image")) if pair.group is None else ("group", pair.group)


def mean_curve(
    samples: ArrayLike, *, axis: str = "layer", at: Iterable[int] | None = None, clusters: Clusters = None
) -> dict[str, Any]:
    """Means of (N, X) values over samples, with a percentile bootstrap over clusters; one of them has no interval."""
    values = _samples(samples)
    means, low, high = _bootstrap(values, clusters)
    points = list(range(values.shape[1])) if at is None else list(at)
    return _curve(axis, points, means, low, high, len(values))


def mean_scalar(samples: ArrayLike, *, clusters: Clusters = None) -> dict[str, Any]:
    """The mean of (N,) values, with a percentile bootstrap over clusters."""
    values = _samples(np.asarray(samples, dtype=np.float64)[:, None])
    means, low, high = _bootstrap(values, clusters)
    return {"value": number(means[0]), "low": number(low[0]), "high": number(high[0]), "n": len(values)}


def share_curve(
    flags: ArrayLike, *, axis: str = "layer", at: Iterable[int] | None = None, clusters: Clusters = None
) -> dict[str, Any]:
    """Shares of (N, X) yes or no over samples, with Wilson's interval over clusters."""
    values = _samples(flags)
    low, high = clustered_wilson(values, _names(values, clusters))
    points = list(range(values.shape[1])) if at is None else list(at)
    return _curve(axis, points, values.mean(0), low, high, len(values))


def share_scalar(flags: ArrayLike, *, clusters: Clusters = None) -> dict[str, Any]:
    """The share of (N,) yes or no, with Wilson's interval over clusters."""
    curve = share_curve(np.asarray(flags, dtype=np.float64)[:, None], clusters=clusters)
    return {"value": curve["value"][0], "low": curve["low"][0], "high": curve["high"][0], "n": curve["n"]}


def no_scalar(value: float | None, n: int) -> dict[str, Any]:
    """A number without an interval: read off a curve, where the curve's own intervals say how sure it is."""
    return {"value": None if value is None else number(value), "low": None, "high": None, "n": n}


def number(value: float) -> float | None:
    """A JSON number; null for what is none."""
    value = float(value)
    return value if math.isfinite(value) else None


def table(values: ArrayLike) -> list[list[float | None]]:
    """A matrix as nested lists."""
    return [[number(cell) for cell in row] for row in np.asarray(values, dtype=np.float64)]


def cut_answers(flags: Mapping[str, Sequence[bool]]) -> dict[str, dict[str, float]]:
    """ "cut": the share of plain answers that came to no end within their limit, of each function that has some.

    What a cut answer would have said is not known: it counts by what is there, mostly as wrong. A warning says so.
    """
    shares = {name: sum(cut) / len(cut) for name, cut in flags.items() if any(cut)}
    if shares:
        logger.warning("%s", cut_warning(shares))
    return {"cut": shares} if shares else {}


def by_function(functions: Sequence[str]) -> dict[str, list[int]]:
    """Rows of each function, in order of appearance."""
    return {name: [row for row, other in enumerate(functions) if other == name] for name in dict.fromkeys(functions)}


def _samples(values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or not len(array):
        raise InputError("A metric was asked for without a single sample. Give at least one prompt or probe pair.")
    return array


def _names(values: Floats, clusters: Clusters) -> Sequence[Hashable]:
    """Clusters of the samples; without any, each is its own."""
    if clusters is None:
        return range(len(values))
    assert len(clusters) == len(values), f"{len(clusters)} clusters of {len(values)} samples"
    return clusters


def _bootstrap(values: Floats, clusters: Clusters) -> tuple[Floats, Floats, Floats]:
    """(X,) means and the 2.5 % and 97.5 % points of resampled means; NaN bounds where there is one cluster."""
    means = values.mean(0)
    totals, sizes = cluster_totals(values, _names(values, clusters))
    n = len(sizes)
    if n < 2:
        none = np.full_like(means, np.nan)
        return means, none, none
    counts = np.random.default_rng(BOOTSTRAP_SEED).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    resampled = counts @ totals / (counts @ sizes)[:, None]  # (RESAMPLES, X)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    return means, low, high


def _curve(axis: str, at: list[int], value: Floats, low: Floats, high: Floats, n: int) -> dict[str, Any]:
    lists = {name: [number(x) for x in xs] for name, xs in (("value", value), ("low", low), ("high", high))}
    return {"axis": axis, "at": at, **lists, "n": n}
