"""The training set, ready: rows with their lengths and what is known of them; parts of several, one behind another."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from datasets import Dataset, concatenate_datasets

from vfl.train.preflight.facts import DataFacts


@dataclass(frozen=True)
class Prepared:
    """Rows of an epoch.

    Attributes:
        rows: with the columns of `vfl.train.rows.table`, and `length` in tokens.
        text: tokens of each row that are not image tokens.
        image: image tokens of each row.
        facts: what was read, for preflight and card.
    """

    rows: Dataset
    text: list[int]
    image: list[int]
    facts: DataFacts


def joined(parts: Sequence[tuple[Prepared, Sequence[int]]], facts: DataFacts) -> Prepared:
    """The chosen rows of each part, in order; a row may be chosen several times.

    Args:
        parts: each with the numbers of its rows.
        facts: of all together.
    """
    return Prepared(
        rows=concatenate_datasets([part.rows.select(chosen) for part, chosen in parts]),
        text=[part.text[n] for part, chosen in parts for n in chosen],
        image=[part.image[n] for part, chosen in parts for n in chosen],
        facts=facts,
    )


def shuffled(prepared: Prepared, seed: int) -> Prepared:
    """The rows in another order, the same one wherever the seed is the same."""
    return in_order(prepared, Random(f"order/{seed}").sample(range(len(prepared.rows)), len(prepared.rows)))


def in_order(prepared: Prepared, order: Sequence[int]) -> Prepared:
    """The rows in the order of these numbers."""
    return joined([(prepared, order)], prepared.facts)
