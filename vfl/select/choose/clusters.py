"""K-means over rows that are too many for memory: learnt from a sample, assigned a piece at a time."""

from collections.abc import Iterable
from typing import Any

import numpy as np

SAMPLE = 100_000
"""Rows that k-means learns from."""
PIECE = 50_000
"""Rows that are assigned at a time."""
MOST_CLUSTERS = 1_000


def kmeans(vectors: np.ndarray, number: int, seed: int) -> Any:
    """Mini-batch k-means of (n, d) vectors with at most `number` clusters, `MOST_CLUSTERS` and a cluster a row."""
    from sklearn.cluster import MiniBatchKMeans

    number = max(1, min(MOST_CLUSTERS, number, len(vectors)))
    return MiniBatchKMeans(number, random_state=seed, n_init=3, batch_size=1024).fit(vectors)


def vectors_of(values: Any, size: int | None = None) -> np.ndarray:
    """An Arrow column of lists of one length as (n, d) float32; zeros where a row has none.

    Args:
        size: d, where it may be that no row has any.
    """
    there = values.is_valid().to_numpy(False)
    flat = values.flatten().to_numpy(False).astype(np.float32)
    vectors = np.zeros((len(values), size or len(flat) // max(there.sum(), 1)), np.float32)
    vectors[there] = np.nan_to_num(flat).reshape(there.sum(), vectors.shape[1])
    return vectors


def insert_pieces(connection: Any, table: str, pieces: Iterable[dict[str, Any]]) -> None:
    """Add many small pieces of rows to a table, `PIECE` or more rows at a time."""
    pending: list[dict[str, Any]] = []
    for piece in pieces:
        pending.append(piece)
        if sum(len(next(iter(columns.values()))) for columns in pending) >= PIECE:
            insert(connection, table, _joined(pending))
            pending = []
    if pending:
        insert(connection, table, _joined(pending))


def _joined(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def insert(connection: Any, table: str, columns: dict[str, Any]) -> None:
    """Add rows to a table, in the order of its columns."""
    import pyarrow as pa

    connection.register("piece", pa.table(columns))
    connection.execute(f"INSERT INTO {table} SELECT * FROM piece")
    connection.unregister("piece")
