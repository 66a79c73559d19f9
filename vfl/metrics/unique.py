"""Unique information (BROJA): what X' tells of Y that X does not, for small alphabets.

    UI(Y; X' \\ X) = min over Q of I_Q(Y; X' | X),   Q with P's marginals of (Y, X) and of (Y, X')

Source: Bertschinger, Rauh, Olbrich, Jost, Ay, "Quantifying unique information" (2014). A convex programme, solved by
alternating projections as in Banerjee, Rauh, Montufar, "Computing the unique information" (2018): with R(x'|x) fixed
the best Q(., .|y) is the coupling of P(x|y) and P(x'|y) nearest to P(x|y) R(x'|x), found by iterative scaling; with Q
fixed the best R is Q(x'|x).

Legend: Y, X, X' sizes of the alphabets. All in nats.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy

from vfl.errors import InputError

Floats = NDArray[np.float64]
ITERATIONS = 5000
SCALINGS = 50
TOLERANCE = 1e-10  # of the objective between two iterations


def unique_information(joint: ArrayLike, *, iterations: int = ITERATIONS, tolerance: float = TOLERANCE) -> float:
    """UI(Y; X' \\ X) of P(y, x, x'), (Y, X, X'), in nats; the optimum is approached from above.

    Raises:
        InputError: for a table that is no distribution.
    """
    table = _checked(joint)
    with_x, with_other = table.sum(2), table.sum(1)  # (Y, X), (Y, X')
    weight = table.sum((1, 2))
    present = weight > 0
    with_x, with_other, weight = with_x[present], with_other[present], weight[present]
    coupling = with_x[:, :, None] * with_other[:, None, :] / weight[:, None, None]
    before = conditional_information(coupling)
    for _ in range(iterations):
        pair = coupling.sum(0)  # (X, X')
        following = pair / np.maximum(pair.sum(1, keepdims=True), 1e-300)  # R(x'|x)
        coupling = _scaled(with_x[:, :, None] * following, with_x, with_other)
        now = conditional_information(coupling)
        change, before = before - now, min(before, now)
        if change < tolerance:
            break
    return max(0.0, before)


def information_parts(joint: ArrayLike, *, iterations: int = ITERATIONS) -> dict[str, float]:
    """I(Y; X, X') of P(y, x, x') in its four parts, which add up to it, in nats.

    Returns:
        "unique" of X' and "unique_before" of X alone, "shared" by both, and "synergy" that only both together tell.
    """
    table = _checked(joint)
    ours, theirs = mutual_information(table.sum(2)), mutual_information(table.sum(1))
    unique = min(unique_information(table, iterations=iterations), theirs)
    shared = min(theirs - unique, ours)
    whole = mutual_information(table.reshape(len(table), -1))
    parts = {"unique": unique, "unique_before": ours - shared, "shared": shared}
    return {**parts, "synergy": max(0.0, whole - sum(parts.values()))}


def conditional_information(joint: Floats) -> float:
    """I(Y; X' | X) of P(y, x, x')."""
    pair, with_x, x = joint.sum(0), joint.sum(2), joint.sum((0, 2))
    entropies = (xlogy(part, part).sum() for part in (joint, x, pair, with_x))
    whole, alone, both, known = entropies
    return float(whole + alone - both - known)


def mutual_information(joint: Floats) -> float:
    """I(Y; X) of P(y, x)."""
    whole, *parts = (xlogy(part, part).sum() for part in (joint, joint.sum(0), joint.sum(1)))
    return float(whole - sum(parts))


def _scaled(start: Floats, rows: Floats, columns: Floats) -> Floats:
    """(Y, X, X') rescaled until each y has the row sums (Y, X) and column sums (Y, X')."""
    scaled = start
    for _ in range(SCALINGS):
        scaled = scaled * (columns / np.maximum(scaled.sum(1), 1e-300))[:, None, :]
        sums = scaled.sum(2)
        scaled = scaled * (rows / np.maximum(sums, 1e-300))[:, :, None]
        if np.abs(sums - rows).max() < 1e-14:
            break
    return scaled


def _checked(joint: ArrayLike) -> Floats:
    table = np.asarray(joint, dtype=np.float64)
    if table.ndim != 3 or not np.isfinite(table).all() or (table < 0).any() or abs(table.sum() - 1) > 1e-9:
        raise InputError(
            f"Expected a joint distribution P(y, x, x'): three axes, no negative entries, sum 1; got shape "
            f"{table.shape} and sum {table.sum():.6g}."
        )
    return table
