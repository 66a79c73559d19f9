"""What could be won: policies that know what each row is.

| name | leaves out | functions |
|---|---|---|
| oracle | blind rows, repeats, wrong answers | in parts as equal as there are rows |
| oracle, wrong answers kept | blind rows, repeats | likewise |
| random, no junk | blind rows, repeats, wrong answers | as in the data |
"""

from collections.abc import Callable
from random import Random
from typing import Any

from experiments.selection.pool import FUNCTIONS, JUNK
from experiments.selection.table import NO_JUNK, ORACLE, WRONG_KEPT

Pool = list[dict[str, Any]]


def oracle(pool: Pool, count: int, seed: int) -> list[str]:
    """Right rows only, the functions in parts as equal as there are rows."""
    return _equal([row for row in pool if row["truth"] not in JUNK], count, Random(f"oracle/{seed}"))


def oracle_with_wrong_answers(pool: Pool, count: int, seed: int) -> list[str]:
    """The same with wrong answers among each function's rows, as often as the pool has them."""
    kept = [row for row in pool if row["truth"] not in ("blind", "repeat")]
    return _equal(kept, count, Random(f"{WRONG_KEPT}/{seed}"))


def random_without_junk(pool: Pool, count: int, seed: int) -> list[str]:
    """Right rows only, drawn."""
    names = [row["id"] for row in pool if row["truth"] not in JUNK]
    return Random(f"{NO_JUNK}/{seed}").sample(names, count)


ORACLES: dict[str, Callable[[Pool, int, int], list[str]]] = {
    ORACLE: oracle,
    WRONG_KEPT: oracle_with_wrong_answers,
    NO_JUNK: random_without_junk,
}


def _equal(rows: Pool, count: int, rng: Random) -> list[str]:
    kinds = sorted({_function(row) for row in rows})
    names = {kind: [row["id"] for row in rows if _function(row) == kind] for kind in kinds}
    taken: list[str] = []
    for place, kind in enumerate(sorted(names, key=lambda kind: len(names[kind]))):
        part = min(len(names[kind]), (count - len(taken)) // (len(names) - place))
        taken += rng.sample(names[kind], part)
    return taken


def _function(row: dict[str, Any]) -> str:
    """The function that a row asks for; one with a wrong answer has the name that it had."""
    return str(row["truth"]) if row["truth"] not in JUNK else next(name for name in FUNCTIONS if name in row["id"])
