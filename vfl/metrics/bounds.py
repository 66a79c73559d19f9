"""Bounds between distances, errors and information of two layers' states X and X' ("Skip-It", Hartman et al.).

All in nats. P_t = P(d(X, X') > t), and a ball are the support points of X' within t of a point of X. The formulas are
rebuilt from the paper's text; they are checked on random discrete distributions.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlog1py, xlogy

Floats = NDArray[np.float64]


def binary_entropy(p: ArrayLike) -> Floats:
    """h2(p) = -p log p - (1 - p) log(1 - p)."""
    p = _share(p)
    return np.asarray(-xlogy(p, p) - xlog1py(1 - p, -p))


def error_gap_bound(distance: ArrayLike, lipschitz: float = 1.0) -> Floats:
    """Theorem 1: |MMSE(Y|X) - MMSE(Y|X')| <= 2 L^2 E[d(X, X')] for states of unit norm and cosine distance.

    L is the larger of the Lipschitz constants of E[Y | x, x'] in x and in x'. Theorem 2 adds, for errors estimated with
    other predictors, the larger of their excess errors over the two MMSE.
    """
    return 2 * lipschitz**2 * np.asarray(distance, dtype=np.float64)


def distance_bound(within: ArrayLike, tau: float, largest: float = 2.0) -> Floats:
    """Proposition 1: E[d] <= tau + (d_max - tau) P(d > tau); the printed form takes d_max for 1, which is not cosine's.

    Args:
        within: P(d <= tau).
        tau: a distance.
        largest: d_max, 2 for cosine distance.
    """
    return tau + (largest - tau) * (1 - _share(within))


def entropy_upper(exceed: ArrayLike, support: ArrayLike, fewest: ArrayLike, most: ArrayLike) -> Floats:
    """Theorem 3 (Fano with lists): H(X'|X) <= h2(P_t) + P_t log((|X| - N_min) / N_max) + log N_max.

    Vacuous where N_max is near |X|: compare it with log |X|.

    Args:
        exceed: P_t.
        support: |X|, number of support points.
        fewest: N_min, of support points in a ball.
        most: N_max.
    """
    exceed = _share(exceed)
    support, fewest, most = (np.asarray(x, dtype=np.float64) for x in (support, fewest, most))
    # where every ball holds everything P_t is 0, and so is its term
    return np.asarray(
        binary_entropy(exceed) + xlogy(exceed, np.maximum(support - fewest, 1e-300)) + xlogy(1 - exceed, most)
    )


def entropy_tightest(fano: ArrayLike, support: ArrayLike, information: ArrayLike) -> Floats:
    """The least of three bounds of H(X'|X): Theorem 3, log |X|, and log |X| - I with any lower bound of I(X;X').

    Args:
        fano: `entropy_upper`.
        support: |X|, number of support points of X'.
        information: a lower bound of I(X;X'), such as `information_kl`; what is below 0 counts as 0.
    """
    most = np.log(np.asarray(support, dtype=np.float64))
    return np.minimum(np.asarray(fano, dtype=np.float64), most - np.maximum(np.asarray(information), 0))


def information_lower(exceed: ArrayLike, least: ArrayLike, greatest: ArrayLike) -> Floats:
    """Theorem 4 (Braun and Pokutta): I(X;X') >= (1 - P_t) log(1 / p_max) + P_t log(1 / (1 - p_min)) - h2(P_t).

    Args:
        exceed: P_t.
        least: p_min, the least probability of a ball under the marginal of X'.
        greatest: p_max.
    """
    exceed, least, greatest = _share(exceed), _share(least), _share(greatest)
    tiny = 1e-300  # a ball that is never hit leaves nothing within t, one that is always hit nothing beyond
    inside = -xlogy(1 - exceed, np.maximum(greatest, tiny))
    outside = -xlogy(exceed, np.maximum(1 - least, tiny))
    return np.asarray(inside + outside - binary_entropy(exceed))


def information_kl(exceed: ArrayLike, shuffled: ArrayLike) -> Floats:
    """I(X;X') >= KL(Bernoulli(1 - P_t) || Bernoulli(q_t)), never below Theorem 4.

    q_t is the share of shuffled (independent) pairs within t. By data processing of the event d <= t.
    """
    within, shuffled = 1 - _share(exceed), _share(shuffled)
    tiny = 1e-300
    return np.asarray(
        xlogy(within, np.maximum(within, tiny))
        - xlogy(within, np.maximum(shuffled, tiny))
        + xlogy(1 - within, np.maximum(1 - within, tiny))
        - xlogy(1 - within, np.maximum(1 - shuffled, tiny))
    )


def information_gap_bound(information: ArrayLike, norm: float = 1.0) -> Floats:
    """Theorem 5: MMSE(Y|X) - MMSE(Y|X') <= 2 C^2 I(Y;X'|X) for ||Y|| <= C, by total variation and Pinsker."""
    return 2 * norm**2 * np.asarray(information, dtype=np.float64)


def _share(value: ArrayLike) -> Floats:
    """Probabilities that are sums of others, without what rounding puts beyond 0 and 1."""
    return np.clip(np.asarray(value, dtype=np.float64), 0, 1)
