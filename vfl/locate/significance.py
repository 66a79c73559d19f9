"""Which blocks change more answers than disruption does, for one sample of pairs or for many resamples at once.

Legend: S samples (rows), B blocks (columns).
"""

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


def levels(data: Outcomes, weights: Floats, floor: float) -> Levels:
    """Rates and p-values under pair weights (S, P): a row of ones is the sample itself, multinomial counts a resample.

    Where a block has a control swap, the null hypothesis is that source and control labels are exchangeable within each
    pair. All permutations of the labels give the exact test: only discordant pairs (changed by one, not by the other)
    move the difference, and each does so with probability 1/2, so the count of pairs changed by the source alone is
    Binomial(discordant, 1/2). That is McNemar's exact test, one-sided.
    Where it has none, the count of changed pairs is tested against Binomial(pairs, floor).
    """
    ran, changed = _count(data.changed)
    controlled = ran & ~np.isnan(data.control)
    disrupted = np.nan_to_num(data.control) > 0
    has_control = controlled.any(axis=0)  # (B,)

    def total(flags: Bools) -> Floats:
        return weights @ flags.astype(float)  # (S, B)

    runs, hits = total(ran), total(changed)
    gained, lost = total(controlled & changed & ~disrupted), total(controlled & ~changed & disrupted)
    control_rate = total(controlled & disrupted) / np.maximum(total(controlled), 1)
    p_paired = binom.sf(gained - 1, gained + lost, 0.5)
    p_floor = binom.sf(hits - 1, runs, floor)
    excess = hits / np.maximum(runs, 1) - np.where(has_control, control_rate, 0.0)
    finite = np.isfinite(data.effect)
    effect = weights @ np.where(finite, data.effect, 0.0) / np.maximum(total(finite), 1)
    return Levels(np.maximum(excess, 0.0), np.where(has_control, p_paired, p_floor), effect)


def _count(values: Floats) -> tuple[Bools, Bools]:
    """Which cells were run, and which of them are 1."""
    return ~np.isnan(values), np.nan_to_num(values) > 0
