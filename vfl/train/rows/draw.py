"""Rows that are drawn from a pool, the same ones wherever the seed is the same."""

from random import Random


def drawn(pool: int, count: int, rng: Random) -> list[int]:
    """`count` of the rows 0 to `pool` - 1, none again before all have come; each time through in another order."""
    rows: list[int] = []
    while len(rows) < count:
        rows += rng.sample(range(pool), min(pool, count - len(rows)))
    return rows
