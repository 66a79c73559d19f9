"""How a budget is divided among classes: by weights, and what a class can't use goes to those that still have rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Prefix = Callable[[str, float], tuple[int, int]]
"""prefix(name, x): the first rows of a class that cost at most x together, as their number and their cost."""


@dataclass(frozen=True)
class Tier:
    """Classes that are filled together, by weight; a later tier gets what an earlier one leaves."""

    weights: Mapping[str, float]


def allocate(limit: int, totals: Mapping[str, int], tiers: Sequence[Tier]) -> dict[str, float]:
    """What each class may cost, as a fraction of rows still; the sum is the limit, or all there is."""
    left = float(limit)
    amounts: dict[str, float] = {}
    for tier in tiers:
        found = _fill(left, totals, {name: w for name, w in tier.weights.items() if totals.get(name, 0) > 0})
        left -= sum(found.values())
        amounts |= found
    return amounts


def _fill(limit: float, totals: Mapping[str, int], weights: Mapping[str, float]) -> dict[str, float]:
    """Water filling: each class its weight's part, but no more than it has."""
    open_classes = {name: weight for name, weight in weights.items() if weight > 0}
    full: dict[str, float] = {}
    while open_classes:
        level = max(limit - sum(full.values()), 0.0) / sum(open_classes.values())
        over = [name for name, weight in open_classes.items() if totals[name] <= weight * level]
        if not over:
            return full | {name: weight * level for name, weight in open_classes.items()}
        for name in over:
            full[name] = float(totals[name])
            del open_classes[name]
    return full


def take(limit: int, totals: Mapping[str, int], tiers: Sequence[Tier], prefix: Prefix) -> dict[str, int]:
    """How many rows of each class, from its best, are taken.

    Rows are whole, so a class leaves up to a row of its part; that is carried to the next one. At the end no class has
    a next row that still fits: the limit is kept, and missed by less than one row.
    """
    amounts = allocate(limit, totals, tiers)
    # classes that are used up come first: they leave nothing over, and nothing can be carried to them
    order = sorted(amounts, key=lambda name: (amounts[name] < totals[name], name))
    taken: dict[str, tuple[int, int]] = {}
    carried = 0.0
    for name in order:
        available = amounts[name] + carried
        taken[name] = prefix(name, available + 1e-6)
        carried = available - taken[name][1]
    for name in [n for tier in tiers for n in sorted(tier.weights) if tier.weights[n] > 0 and totals.get(n, 0) > 0]:
        spent = sum(cost for _, cost in taken.values())
        own = taken[name][1] if name in taken else 0
        taken[name] = prefix(name, own + limit - spent)
    return {name: count for name, (count, _) in taken.items()}
