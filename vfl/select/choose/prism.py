"""The policy `prism`: images that are least like the others (PRISM, arXiv 2502.12119).

With the mean over all rows taken off their features, a row's score is its mean Pearson correlation with the others,
and the lowest go first. With z a row's recentred features, made of mean 0 over their dimensions and of length 1, the
correlation of two rows is z_i . z_j, so that its mean over the others,

    (z_i . (z_1 + ... + z_N) - z_i . z_i) / (N - 1),

takes O(N d) instead of O(N^2 d).

The paper's features are those of a shallow layer, averaged over the image's tokens; here they are the last layer's,
16 random projections of their mean. Rows of text alone, which have none, keep their part of the budget and are drawn:
our reading.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from vfl.select.choose.allocation import Tier
from vfl.select.choose.clusters import PIECE, insert, vectors_of
from vfl.select.choose.states import of_length_one


def prism(connection: Any, pool: str, *, drawn: str) -> list[Tier]:
    """Write the table `placed(position, stratum, turn)`; weights of rows with and without an image.

    Args:
        pool: view of the rows that may be chosen.
        drawn: the SQL of a number in (0, 1) for each row; the largest are taken, as by the policy random.
    """
    (written,) = connection.execute(f"SELECT count(*) FROM {pool} WHERE kind <> 'vision'").fetchone()
    connection.execute(f"INSERT INTO placed SELECT position, 'text', -({drawn}) FROM {pool} WHERE kind <> 'vision'")
    count, total = 0, np.zeros(1)
    for _, states in _pieces(connection, pool):
        count, total = count + len(states), total + states.sum(0)
    mean = total / max(count, 1)
    whole = sum((_comparable(states, mean).sum(0) for _, states in _pieces(connection, pool)), np.zeros(1))
    for positions, states in _pieces(connection, pool):
        own = _comparable(states, mean)
        correlation = (own @ whole - (own**2).sum(1)) / max(count - 1, 1)
        insert(connection, "placed", {"position": positions, "stratum": ["image"] * len(own), "turn": correlation})
    return [Tier({"image": float(count), "text": float(written)})]


def _comparable(states: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(n, d) recentred, then of mean 0 and length 1 in each row; zeros where a row is the mean."""
    centred = states - mean
    return of_length_one(centred - centred.mean(1, keepdims=True))


def _pieces(connection: Any, pool: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(n,) positions and (n, d) states in float64."""
    query = f"SELECT position, image_state FROM {pool} WHERE kind = 'vision'"
    for batch in connection.cursor().sql(query).to_arrow_reader(PIECE):
        yield batch["position"].to_numpy(), vectors_of(batch["image_state"]).astype(np.float64)
