"""Which blocks change more answers than disruption does, for one sample of pairs or for many resamples at once.

Legend: S samples (rows), P pairs, G groups of them, B blocks (columns).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc
from scipy.stats import binom

from vfl.locate.curves import Outcomes
from vfl.stats import Bools, Floats

CASES = 4096  # computed at once


@dataclass(frozen=True)
class Levels:
    """Per block: the rate above the control swap's, and the one-sided p-value that it is above; all (S, B)."""

    excess: Floats
    p: Floats
    effect: Floats  # mean drop of the log-odds, to tell layers apart whose rates are equal
    background: Floats  # what was taken from the rate: the control swap's rate, or the median block's
    has_control: Bools  # (B,) whether the block was tested against a control swap


def pairs_needed(num_layers: int, alpha: float) -> int:
    """The fewest pairs, or groups of them, with which one of the layers can be significant.

    Holm's first step divides alpha by the number of layers; n discordant pairs give p = 2^-n at best. The test against
    a floor would be content with fewer, but a floor that so few pairs give is none.
    """
    return math.ceil(math.log2(num_layers / alpha))


def levels(data: Outcomes, weights: Floats, floor: float, min_control: int = 1) -> Levels:
    """Rates and p-values under pair weights (S, P): a row of ones is the sample itself, multinomial counts a resample.

    Where a block has a control swap, the null hypothesis is that source and control labels are exchangeable within each
    pair. All permutations of the labels give the exact test: only discordant pairs (changed by one, not by the other)
    move the difference, and each does so with probability 1/2, so the count of pairs changed by the source alone is
    Binomial(discordant, 1/2). That is McNemar's exact test, one-sided. Pairs of a group are permuted together
    (`sign_flips`).
    Where fewer than `min_control` groups have one, the count of changed pairs is tested against Binomial(pairs, f), f
    being the median rate of the blocks of its width, but at least `floor`: what any swap does, wherever it is made. Of
    groups both counts are those of as many independent pairs as would vary as much (Korn and Graubard 1998).

    Args:
        data: what the pairs did.
        weights: (S, P); a group's pairs have the same.
        floor: the least rate that is tested against.
        min_control: groups with a control swap below which these don't decide.
    """
    ran, changed = _count(data.changed)
    controlled = ran & ~np.isnan(data.control)
    disrupted = np.nan_to_num(data.control) > 0
    has_control = (data.by_group(controlled.astype(float)) > 0).sum(axis=0) >= min_control  # (B,)

    def total(flags: Bools) -> Floats:
        return weights @ flags.astype(float)  # (S, B)

    runs, hits = total(ran), total(changed)
    control_rate = total(controlled & disrupted) / np.maximum(total(controlled), 1)
    rate = hits / np.maximum(runs, 1)
    median = _medians(data, rate)
    gained, lost = controlled & changed & ~disrupted, controlled & ~changed & disrupted
    least = np.maximum(median, floor)
    if data.groups:
        firsts = np.unique(data.group_of, return_index=True)[1]
        of_groups = weights[:, firsts]  # (S, G)
        p_paired: Floats = sign_flips(data.by_group(gained.astype(float) - lost), of_groups)
        trials = _independent(data.by_group(changed.astype(float)), data.by_group(ran.astype(float)), of_groups, rate)
        p_floor: Floats = _tail(rate * trials, trials, least)
    else:
        p_paired = np.asarray(binom.sf(total(gained) - 1, total(gained) + total(lost), 0.5))
        p_floor = np.asarray(binom.sf(hits - 1, runs, least))
    background = np.where(has_control, control_rate, median)
    finite = np.isfinite(data.effect)
    effect = weights @ np.where(finite, data.effect, 0.0) / np.maximum(total(finite), 1)
    return Levels(
        excess=np.maximum(rate - background, 0.0),
        p=np.where(has_control, p_paired, p_floor),
        effect=effect,
        background=background,
        has_control=has_control,
    )


def sign_flips(differences: Floats, weights: Floats) -> Floats:
    """(S, B) one-sided p-values of the sums of group differences when the sign of each group is a coin's.

    The exact permutation test whose units are groups: P(sum of +-|d| >= sum of d) over all signs, from the
    characteristic function, the product of cos(|d| t) over groups. Groups of one pair give McNemar's test.

    Args:
        differences: (G, B) whole numbers d: pairs of a group changed by the source alone less those by the control.
        weights: (S, G) whole numbers: how often each group counts.
    """
    observed = weights @ differences  # (S, B)
    sizes = np.arange(1, int(np.abs(differences).max(initial=0)) + 1)
    counts = np.stack([weights @ (np.abs(differences) == size) for size in sizes], axis=-1) if sizes.size else None
    if counts is None:
        return np.ones_like(observed)
    # Resamples and layers repeat each other: each case is computed once.
    rows = np.concatenate([counts, observed[..., None]], axis=-1).reshape(-1, sizes.size + 1)
    cases, place = np.unique(rows, axis=0, return_inverse=True)
    tails = [_flipped(part[:, :-1], part[:, -1], sizes) for part in np.array_split(cases, len(cases) // CASES + 1)]
    p: Floats = np.concatenate(tails)[place.reshape(-1)].reshape(observed.shape)
    return p


def _flipped(counts: Floats, observed: Floats, sizes: NDArray[np.intp]) -> Floats:
    """(U,) P(X >= observed) where X is the sum of counts[:, n] coins of +-sizes[n]; counts (U, sizes)."""
    reach = int((counts @ sizes).max())
    length = 2 * reach + 1
    angles = 2 * np.pi * np.arange(reach + 1) / length
    curve = np.ones((len(counts), reach + 1))
    for n, size in enumerate(sizes):
        curve *= np.cos(size * angles) ** counts[:, n, None]
    density = np.fft.irfft(curve, n=length, axis=1)  # at 0, 1, ..., reach, -reach, ..., -1
    ordered = np.roll(density, reach, axis=1)
    upper = np.cumsum(ordered[:, ::-1], axis=1)[:, ::-1]  # P(X >= -reach), ..., P(X >= reach)
    return np.clip(upper[np.arange(len(counts)), observed.astype(int) + reach], 0.0, 1.0)


def _independent(hits: Floats, sizes: Floats, weights: Floats, rate: Floats) -> Floats:
    """(S, B) how many independent pairs would let the rate vary as much as these groups do, at most as there are."""
    count = weights @ sizes
    square = weights @ hits**2 - 2 * rate * (weights @ (hits * sizes)) + rate**2 * (weights @ sizes**2)
    spread = rate * (1 - rate)
    groups = weights @ (sizes > 0)
    unbiased = groups / np.maximum(groups - 1, 1)
    variance = np.maximum(unbiased * square / np.maximum(count, 1) ** 2, spread / np.maximum(count, 1))
    # Where all pairs agree nothing tells how alike those of a group are.
    trials: Floats = np.where(spread > 0, spread / np.where(variance > 0, variance, 1.0), groups)
    return trials


def _tail(hits: Floats, trials: Floats, rate: Floats) -> Floats:
    """P(Binomial(trials, rate) >= hits), continued to numbers that are not whole."""
    p: Floats = np.where(hits > 0, betainc(np.maximum(hits, 1e-9), trials - hits + 1, rate), 1.0)
    return p


def _medians(data: Outcomes, rate: Floats) -> Floats:
    """(S, B): the median rate of the blocks as wide as each block, where the sweep holds them at every place.

    Other blocks (prefixes, suffixes) get the single layers'; fewer than three layers have no median to speak of. Of
    layers that were not swept nothing is known: the median of the others is the higher one.
    """
    widths = np.array([last - first + 1 for first, last in data.blocks])
    out = np.zeros_like(rate)
    if data.num_layers < 3:
        return out
    out[:] = np.median(rate[:, : data.num_layers][:, data.swept], axis=1, keepdims=True)
    for width in range(2, data.num_layers - 1):
        columns = np.flatnonzero(widths == width)
        if len(columns) == data.num_layers - width + 1:
            swept = columns[~np.isnan(data.changed[:, columns]).all(axis=0)]
            out[:, columns] = np.median(rate[:, swept], axis=1, keepdims=True)
    return out


def _count(values: Floats) -> tuple[Bools, Bools]:
    """Which cells were run, and which of them are 1."""
    return ~np.isnan(values), np.nan_to_num(values) > 0
