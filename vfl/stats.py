"""Statistics that several rooms share: intervals of rates, of means and of paired differences, and Holm's correction.

Legend: N samples, X columns.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Z_95 = 1.959963984540054


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
