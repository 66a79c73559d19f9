"""Statistics that several rooms share: intervals of rates, of means and of paired differences, and Holm's correction.

Legend: N samples, X columns.

Repeated runs over the same items are *crossed*: each of S runs (seeds) answered each of I items. Several groups of
items are blocks, arrays (S, I) with the same runs in their rows; their means weigh equally.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, norm
from scipy.stats import t as student

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Z_95 = 1.959963984540054
LEVEL = (0.025, 0.975)
RESAMPLES = 2000


def wilson(successes: Floats, trials: Floats) -> tuple[Floats, Floats]:
    """Wilson's 95 % score interval of a rate, elementwise; no trials give (0, 1)."""
    n = np.maximum(trials, 1)
    rate = successes / n
    centre = (rate + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 * np.sqrt(rate * (1 - rate) / n + Z_95**2 / (4 * n**2)) / (1 + Z_95**2 / n)
    # At 0 and n successes the bound is exactly 0 and 1, which rounding would miss by 1e-17.
    low = np.where((trials == 0) | (successes == 0), 0.0, centre - half)
    high = np.where((trials == 0) | (successes == trials), 1.0, centre + half)
    return low, high


def clustered_wilson(outcomes: Floats, clusters: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """Wilson's 95 % interval of shares whose samples come in clusters, such as both answers of a pair.

    Wilson's interval at the effective number of samples, rate (1 - rate) / variance of the mean over clusters (Korn and
    Graubard, Survey Methodology 24, 1998), never more than there are samples, and with Student's quantile, since few
    clusters say little of how much clusters differ. Where all agree, nothing tells how alike a cluster's samples are,
    and clusters count as single samples. Clusters of one are Wilson's interval.

    Args:
        outcomes: (N, X), each 0 or 1.
        clusters: N names; equal ones are of one cluster.
    """
    rate, n = effective_samples(outcomes, clusters, LEVEL[1])
    return wilson(rate * n, n)


def effective_samples(outcomes: Floats, clusters: Sequence[Hashable], level: float) -> tuple[Floats, Floats]:
    """(X,) shares, and of how many independent samples each says as much; see `clustered_wilson`.

    Args:
        outcomes: (N, X), each 0 or 1.
        clusters: N names; equal ones are of one cluster.
        level: of the quantile of the interval that is made of it, such as .975.
    """
    totals, sizes = cluster_totals(outcomes, clusters)
    count = float(sizes.sum())
    rate = totals.sum(0) / count
    groups = len(sizes)
    n = np.full(rate.shape, float(groups))
    if 1 < groups < count:
        spread = rate * (1 - rate)
        variance = ((totals - sizes[:, None] * rate) ** 2).sum(0) / count**2 * groups / (groups - 1)
        least = np.maximum(variance, spread / count)
        widened = (norm.ppf(level) / student.ppf(level, groups - 1)) ** 2
        n = np.where(spread > 0, widened * spread / np.where(spread > 0, least, 1.0), n)
    return rate, n


def difference_at_most(gains: Floats, losses: Floats, clusters: Sequence[Hashable], alpha: float) -> Floats:
    """(X,) one-sided upper confidence bounds, at 1 - alpha, of share of gains less share of losses.

    Clopper and Pearson's upper bound of the one less their lower bound of the other, at the number of independent
    samples (Korn and Graubard 1998). Many gains go with few losses, so both fail together, and the level holds though
    each has the whole of alpha: the exact size is at most .93 alpha for 20 to 200 samples and margins of .1
    (tests/test_stats.py computes it). The square-and-add rule has up to four times alpha where both shares are large.

    Args:
        gains: (N, X), each 0 or 1; a sample does not gain and lose both.
        losses: (N, X), each 0 or 1.
        clusters: N names; equal ones are of one cluster.
        alpha: chance that the truth lies above a bound.
    """
    rose, n = effective_samples(gains, clusters, 1 - alpha)
    fell, m = effective_samples(losses, clusters, 1 - alpha)
    # No room above all, or below none: beta's quantile is not defined there.
    most = np.where(rose < 1, beta.ppf(1 - alpha, rose * n + 1, np.maximum((1 - rose) * n, 1e-9)), 1.0)
    least = np.where(fell > 0, beta.ppf(alpha, np.maximum(fell * m, 1e-9), (1 - fell) * m + 1), 0.0)
    bound: Floats = most - least
    return bound


def cluster_totals(values: Floats, clusters: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """(G, X) sums and (G,) sizes of clusters, in order of appearance."""
    places = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    rows = np.array([places[name] for name in clusters])
    totals = np.zeros((len(places), values.shape[1]))
    np.add.at(totals, rows, values)
    return totals, np.bincount(rows).astype(np.float64)


def holm(p: Floats, alpha: float) -> Bools:
    """Holm's step-down over the columns of each row: which hypotheses fall with a family-wise error of alpha."""
    if not p.shape[1]:
        return np.zeros(p.shape, bool)
    order = np.argsort(p, axis=1, kind="stable")
    stepped = np.take_along_axis(p, order, axis=1) * np.arange(p.shape[1], 0, -1)
    falls = np.logical_and.accumulate(stepped <= alpha, axis=1)
    out = np.empty_like(falls)
    np.put_along_axis(out, order, falls, axis=1)
    return out


def crossed_rate(blocks: Sequence[Floats], resamples: int = RESAMPLES) -> tuple[float, float, float]:
    """Mean of crossed outcomes, each 0 or 1, and its 95 % interval over runs and items.

    The interval holds both the percentiles of a bootstrap that draws runs and items anew, and Wilson's interval at the
    effective number of items (Korn and Graubard, Survey Methodology 24, 1998): rate (1 - rate) / variance, never more
    than there are items, with Student's quantile where few runs say how much runs differ. So it does not collapse where
    all outcomes agree. Of a single run the differences between runs are unknown: its interval is over items alone.

    Args:
        blocks: (S, I) each, of the same runs.
        resamples: of the bootstrap.
    """
    rate, variance, quantile = _crossed_moments(blocks)
    low, high = _bootstrap(blocks, resamples)
    least, most = _effective_wilson(rate, variance, quantile, blocks)
    # Rounding may leave a resample's mean beyond 1.
    return rate, max(0.0, min(low, least)), min(1.0, max(high, most))


def crossed_difference(blocks: Sequence[Floats], resamples: int = RESAMPLES) -> tuple[float, float, float]:
    """Mean of crossed changes, each -1, 0 or 1, and its 95 % interval over runs and items.

    As `crossed_rate`; the guard is Student's interval of the mean, and that of the shares that rose and fell, each by
    Wilson, joined by the square-and-add rule (Newcombe, Statistics in Medicine 17, 1998).
    """
    mean, variance, quantile = _crossed_moments(blocks)
    low, high = _bootstrap(blocks, resamples)
    half = quantile * np.sqrt(variance)
    ends = []
    for sign in (1, -1):
        moved = [(sign * block > 0).astype(float) for block in blocks]
        rate, spread, quantile = _crossed_moments(moved)
        least, most = _effective_wilson(rate, spread, quantile, moved)
        ends.append((rate - least, most - rate))
    (rose_less, rose_more), (fell_less, fell_more) = ends
    low = min(low, mean - half, mean - float(np.hypot(rose_less, fell_more)))
    high = max(high, mean + half, mean + float(np.hypot(rose_more, fell_less)))
    return mean, max(-1.0, float(low)), min(1.0, float(high))


def _crossed_moments(blocks: Sequence[Floats]) -> tuple[float, float, float]:
    """Mean over blocks, its variance over runs and items, and the two-sided 95 % quantile that goes with it.

    The variance is that of the runs' means plus that of the items' means, which counts the noise of single answers
    twice: a little too wide, as the two-way bootstrap is (Owen, Annals of Applied Statistics 1, 2007). The degrees of
    freedom are Satterthwaite's.
    """
    weight = 1 / len(blocks)
    of_runs = weight * sum(block.mean(axis=1) for block in blocks)
    runs = len(of_runs)
    parts = [(float(np.var(of_runs, ddof=1)) / runs, runs - 1)] if runs > 1 else []
    for block in blocks:
        items = block.shape[1]
        if items > 1:
            parts.append((weight**2 * float(np.var(block.mean(axis=0), ddof=1)) / items, items - 1))
    variance = sum(part for part, _ in parts)
    if variance <= 0:
        return float(of_runs.mean()), 0.0, Z_95
    freedom = variance**2 / sum(part**2 / free for part, free in parts)
    return float(of_runs.mean()), variance, float(student.ppf(LEVEL[1], freedom))


def _effective_wilson(rate: float, variance: float, quantile: float, blocks: Sequence[Floats]) -> tuple[float, float]:
    """Wilson's interval at the number of independent items that would give this variance."""
    items = len(blocks) ** 2 / sum(1 / block.shape[1] for block in blocks)
    n = items if variance <= 0 else min(items, rate * (1 - rate) / variance)
    if n <= 0:  # a rate of 0 or 1 whose runs or blocks still differ can't be; rounding can
        n = items
    square = quantile**2 / n
    centre = (rate + square / 2) / (1 + square)
    half = quantile * np.sqrt(rate * (1 - rate) / n + square / (4 * n)) / (1 + square)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _bootstrap(blocks: Sequence[Floats], resamples: int) -> tuple[float, float]:
    """Percentiles of means whose runs and items are drawn anew; the same runs in every block. Fixed seed."""
    rng = np.random.default_rng(0)
    runs = blocks[0].shape[0]
    of_runs = rng.multinomial(runs, np.full(runs, 1 / runs), resamples) / runs
    means = np.zeros(resamples)
    for block in blocks:
        items = block.shape[1]
        of_items = rng.multinomial(items, np.full(items, 1 / items), resamples) / items
        means += ((of_runs @ block) * of_items).sum(axis=1) / len(blocks)
    low, high = np.quantile(means, LEVEL)
    return float(low), float(high)
