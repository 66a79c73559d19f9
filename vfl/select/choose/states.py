"""Clusters of rows by the states that scoring kept of them: what policies of the literature make of other features.

A row's vector is its image's and its question's state, each made comparable (over all rows mean 0 and deviation 1 in
each of its 16 numbers, then of length 1), side by side and of length 1 again: cosines mean something. A row without an
image has its question alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from vfl.select.choose.clusters import PIECE, SAMPLE, insert, kmeans, vectors_of
from vfl.select.shards.score_folder import text

STATES = ("image_state", "question_state")
ROWS = 66
"""Rows of a cluster, on average: COINCIDE has 10,000 clusters of 665,000 rows."""


@dataclass(frozen=True)
class StateCluster:
    """The n rows of a cluster in the order of their uids: (n,) positions and costs, (n, d) vectors of length 1."""

    number: int
    positions: np.ndarray
    costs: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True)
class StateClusters:
    """K clusters of the rows of a view, in a table of the connection.

    `centroids` is (K, d), of length 1 but where a cluster's mean is zero.
    """

    connection: Any
    centroids: np.ndarray

    def __iter__(self) -> Iterator[StateCluster]:
        """Clusters that have rows, by number, one in memory at a time."""
        query = "SELECT cluster, position, cost, vector FROM stated ORDER BY cluster, uid"
        pending: list[tuple[np.ndarray, ...]] = []
        # a cursor of its own: whoever reads clusters writes rows meanwhile
        for batch in self.connection.cursor().sql(query).to_arrow_reader(PIECE):
            numbers, *columns = (batch[name].to_numpy() for name in ("cluster", "position", "cost"))
            columns.append(vectors_of(batch["vector"]))
            edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
            for start, end in pairwise(edges):
                if pending and pending[0][0][0] != numbers[start]:
                    yield _joined(pending)
                    pending = []
                pending.append((numbers[start:end], *(column[start:end] for column in columns)))
        if pending:
            yield _joined(pending)


def _joined(pieces: list[tuple[np.ndarray, ...]]) -> StateCluster:
    numbers, positions, costs, vectors = (np.concatenate(part) for part in zip(*pieces, strict=True))
    return StateCluster(int(numbers[0]), positions, costs, vectors)


def state_clusters(connection: Any, pool: str, *, number: int | None, seed: int) -> StateClusters:
    """K-means of the rows of a view with columns position, uid, cost and both states.

    Args:
        number: of clusters; one for each `ROWS` rows if None; `MOST_CLUSTERS` at most.
        seed: of k-means and of the sample that it learns from.
    """
    scales = [_scale(connection, pool, name) for name in STATES]
    (count,) = connection.execute(f"SELECT count(*) FROM {pool}").fetchone()
    order = f"md5_number_lower({text(f'{seed}:sample:')} || uid), uid"
    sample = f"(SELECT * FROM {pool} ORDER BY {order} LIMIT {SAMPLE})"
    learnt = np.concatenate([vectors for _, vectors in _pieces(connection, sample, scales)])
    model = kmeans(learnt, number or count // ROWS, seed)
    size = learnt.shape[1]
    connection.execute(f"""
        CREATE OR REPLACE TABLE stated
        (uid VARCHAR, position BIGINT, cost BIGINT, cluster INTEGER, vector FLOAT[{size}])""")
    import pyarrow as pa

    for batch, vectors in _pieces(connection, pool, scales):
        columns = {name: batch[name] for name in ("uid", "position", "cost")}
        columns["cluster"] = model.predict(vectors).astype(np.int32)
        columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), size)
        insert(connection, "stated", columns)
    return StateClusters(connection, of_length_one(model.cluster_centers_))


def of_length_one(vectors: np.ndarray) -> np.ndarray:
    """(n, d) vectors over their lengths; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def _pieces(
    connection: Any, pool: str, scales: list[tuple[np.ndarray, np.ndarray]]
) -> Iterator[tuple[Any, np.ndarray]]:
    query = f"SELECT uid, position, cost, {', '.join(STATES)} FROM {pool}"
    for batch in connection.cursor().sql(query).to_arrow_reader(PIECE):
        halves = []
        for name, (mean, deviation) in zip(STATES, scales, strict=True):
            half = of_length_one((vectors_of(batch[name], len(mean)) - mean) / deviation)
            half[batch[name].is_null().to_numpy(False)] = 0
            halves.append(half)
        yield batch, of_length_one(np.hstack(halves).astype(np.float32))


def _scale(connection: Any, pool: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of a state's numbers over the rows that have it."""
    query = f"SELECT {name} FROM {pool} WHERE {name} IS NOT NULL"
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    for batch in connection.cursor().sql(query).to_arrow_reader(PIECE):
        vectors = vectors_of(batch[name]).astype(np.float64)
        count, total, squares = count + len(vectors), total + vectors.sum(0), squares + (vectors**2).sum(0)
    mean = total / max(count, 1)
    return mean, np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0)) + 1e-6
