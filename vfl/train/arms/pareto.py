"""Which arms no other arm beats."""

from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points that none dominates, by rising cost.

    Args:
        points: (gain, cost) each; more gain and less cost are better. A point dominates another where it is at least as
            good in both and better in one, so equal points stand on the front together.
    """
    kept = [
        place
        for place, (gain, cost) in enumerate(points)
        if not any(other >= gain and price <= cost and (other, price) != (gain, cost) for other, price in points)
    ]
    return sorted(kept, key=lambda place: (points[place][1], points[place][0]))
