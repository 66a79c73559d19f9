"""Which blocks change more answers than disruption does, for one sample of pairs or for many resamples at once.

Legend: S samples (rows), B blocks (columns).
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from vfl.locate.curves import Outcomes
from vfl.stats import Bools, Floats


@dataclass(frozen=True)
class Levels:
    """Per block: the rate above the control swap's, and the one-sided p-value that it is above; all (S, B)."""

    excess: Floats
    p: Floats
    effect: Floats  # mean drop of the log-odds, to tell layers apart whose rates are equal
    background: Floats  # what was taken from the rate: the control swap's rate, or the median block's
    has_control: Bools  # (B,) whether the block was tested against a control swap


def pairs_needed(num_layers: int, alpha: float) -> int:
    """The fewest pairs with which one of the layers can be significant.

    Holm's first step divides alpha by the number of layers; n discordant pairs give p = 2^-n at best. The test against
    a floor would be content with fewer, but a floor that so few pairs give is none.
    """
    return math.ceil(math.log2(num_layers / alpha))


def levels(data: Outcomes, weights: Floats, floor: float, min_control: int = 1) -> Levels:
    """Rates and p-values under pair weights (S, P): a row of ones is the sample itself, multinomial counts a resample.

    Where a block has a control swap, the null hypothesis is that source and control labels are exchangeable within each
    pair. All permutations of the labels give the exact test: only discordant pairs (changed by one, not by the other)
    move the difference, and each does so with probability 1/2, so the count of pairs changed by the source alone is
    Binomial(discordant, 1/2). That is McNemar's exact test, one-sided.
    Where fewer than `min_control` pairs have one, the count of changed pairs is tested against Binomial(pairs, f), f
    being the median rate of the blocks of its width, but at least `floor`: what any swap does, wherever it is made.
    """
    ran, changed = _count(data.changed)
    controlled = ran & ~np.isnan(data.control)
    disrupted = np.nan_to_num(data.control) > 0
    has_control = controlled.sum(axis=0) >= min_control  # (B,)

    def total(flags: Bools) -> Floats:
        return weights @ flags.astype(float)  # (S, B)

    runs, hits = total(ran), total(changed)
    gained, lost = total(controlled & changed & ~disrupted), total(controlled & ~changed & disrupted)
    control_rate = total(controlled & disrupted) / np.maximum(total(controlled), 1)
    p_paired = binom.sf(gained - 1, gained + lost, 0.5)
    rate = hits / np.maximum(runs, 1)
    median = _medians(data, rate)
    p_floor = binom.sf(hits - 1, runs, np.maximum(median, floor))
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
