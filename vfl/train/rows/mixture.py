"""Several data sets in one epoch, each with its share of the rows.

Weights are shares: those of 3 and 1 make three quarters and one quarter of an epoch, however large the sets are, as the
probabilities of `datasets.interleave_datasets` and of LLaMA-Factory's `interleave_probs`. How long an epoch is follows
from the sets, under the names that `datasets` has for it:

all_exhausted: until every row of every set has come; the set that is largest for its share comes once, the others again
    and again (LLaMA-Factory's interleave_over).
first_exhausted: until one set is through, which is the smallest for its share; of the others a part is left out
    (interleave_under).

Those two draw each row's set at random; here the numbers are exact to the row, and the same in every epoch.
"""

import logging
from collections.abc import Sequence
from random import Random
from typing import Literal

from vfl.train.rows.draw import drawn

logger = logging.getLogger(__name__)

OFTEN = 100
"""Times a row comes in an epoch, from which on it was hardly meant."""


def rows_of_epoch(
    sizes: Sequence[int],
    weights: Sequence[float] | None,
    seed: int,
    strategy: Literal["all_exhausted", "first_exhausted"] = "all_exhausted",
) -> list[list[int]]:
    """For each set, the rows that an epoch holds of it.

    A set's rows come once in their order before any comes again; what is left is drawn without repeats.

    Args:
        sizes: usable rows of each set, at least one.
        weights: of each set, above zero; None: every row once.
        seed: draws rows where a set does not come in whole numbers.
        strategy: when an epoch ends.
    """
    if weights is None:
        return [list(range(size)) for size in sizes]
    # As rows of an epoch for each unit of weight: what a set would have to be for its rows to come once.
    lengths = [size / weight for size, weight in zip(sizes, weights, strict=True)]
    length = max(lengths) if strategy == "all_exhausted" else min(lengths)
    chosen = []
    for number, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
        count = max(1, round(length * weight))
        rng = Random(f"mixture/{seed}/{number}")
        once = list(range(size)) if count >= size else []
        chosen.append(once + drawn(size, count - len(once), rng))
        if count > OFTEN * size:
            logger.warning(
                "set %d of data.train has %d rows, each of which comes %d times in an epoch. Give it a lower weight, "
                "or end an epoch with the first set that is through: data.stopping_strategy=first_exhausted",
                number + 1,
                size,
                count // size,
            )
    return chosen
