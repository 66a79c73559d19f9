"""The policy `coincide`: clusters that help others and are varied get more (COINCIDE, arXiv 2406.10995).

1. Rows are clustered by k-means. S, a cluster's transferability, is the mean cosine of its centroid with its nearest
   other centroids; D, its density, the mean of exp(-|p - q|^2 / 2) over pairs of its rows.
2. A cluster's share is proportional to exp(S / (tau D)), tau = 0.1; what it can't fill goes to the others.
3. Inside, the rows are those whose mean embedding is nearest to the cluster's: one by one the row that leaves the least
   maximum mean discrepancy, MMD^2 = A(C, C) + A(C', C') - 2 A(C, C') with A the mean kernel of two sets.

The paper clusters activations of several layers of a small model into 10,000 groups; here they are the states that
scoring kept of the model itself (vfl.select.choose.states), a group for each 66 rows and 1,000 at most. How many
centroids are near, and the kernel's width, are our reading. In a cluster of more than 4,096 rows kernels are averaged
over so many that are drawn. With few clusters S can be below zero, where a denser cluster gets more instead of less.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from vfl.select.choose.allocation import Tier, allocate
from vfl.select.choose.clusters import insert_pieces
from vfl.select.choose.states import StateCluster, StateClusters, state_clusters

REFERENCE = 4096
"""Rows of a cluster, at most, that a mean over it is taken over."""
BLOCK = 512
SMALLEST = 1e-300
"""A cluster's weight at least: it stays fillable when all others are used up."""


class CoincideConfig(BaseModel):
    """How the policy `coincide` divides the budget."""

    model_config = ConfigDict(extra="forbid")

    tau: float = Field(default=0.1, gt=0, description="small: all to the best clusters; large: equal shares")
    neighbours: int = Field(default=4, ge=1, description="nearest centroids that tell a cluster's transferability")
    clusters: int | None = Field(default=None, ge=1, description="default: one for each 66 rows, at most 1,000")


def coincide(connection: Any, pool: str, config: CoincideConfig, *, limit: int, seed: int) -> list[Tier]:
    """Write the table `placed(position, stratum, turn)`; the clusters' weights.

    Args:
        pool: view of the rows that may be chosen.
        limit: what they may cost together: no more of a cluster is put in order than that may need.
    """
    clusters = state_clusters(connection, pool, number=config.clusters, seed=seed)
    densities, costs, dearest = {}, {}, 0
    for cluster in clusters:
        densities[cluster.number] = density(cluster.vectors, seed)
        costs[cluster.number], dearest = int(cluster.costs.sum()), max(dearest, int(cluster.costs.max()))
    numbers = list(densities)
    near = transferability(clusters.centroids[numbers], config.neighbours)
    shares = cluster_weights(near, np.array([*densities.values()]), config.tau)
    weights = {_name(number): float(share) for number, share in zip(numbers, shares, strict=True)}
    parts = allocate(limit, {_name(number): cost for number, cost in costs.items()}, [Tier(weights)])
    # rows are whole: what another cluster leaves of its part may add a row, and so may what all leave
    reach = {name: part + 2 * dearest for name, part in parts.items()}
    insert_pieces(connection, "placed", _turns(clusters, reach, seed))
    return [Tier(weights)]


def cluster_weights(near: np.ndarray, dense: np.ndarray, tau: float) -> np.ndarray:
    """(K,) exp(S / (tau D)) over the largest, from (K,) transferabilities and densities."""
    logs = near / dense / tau
    return np.maximum(np.exp(logs - logs.max(initial=-np.inf)), SMALLEST)


def transferability(centroids: np.ndarray, neighbours: int) -> np.ndarray:
    """(K,) mean cosine of each of (K, d) centroids with its `neighbours` nearest others; 1 where there are none."""
    if len(centroids) < 2:
        return np.ones(len(centroids))
    cosines = (centroids @ centroids.T).astype(np.float64)
    np.fill_diagonal(cosines, -np.inf)
    near = min(neighbours, len(centroids) - 1)
    return np.partition(cosines, -near, axis=1)[:, -near:].mean(1)


def density(vectors: np.ndarray, seed: int = 0) -> float:
    """Mean kernel over pairs of different rows of (n, d); 1 of a single row."""
    some = _reference(vectors, seed)
    if len(some) < 2:
        return 1.0
    return float((mean_kernel(some, some).sum() - 1) / (len(some) - 1))


def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) exp(-|p - q|^2 / 2) of (n, d) and (m, d) rows."""
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * (a @ b.T)
    return np.exp(-np.maximum(squares, 0) / 2)


def mean_kernel(vectors: np.ndarray, some: np.ndarray) -> np.ndarray:
    """(n,) each row's mean kernel with `some`, a block of rows at a time."""
    blocks = np.array_split(vectors, len(vectors) // BLOCK + 1)
    return np.concatenate([kernel(block, some).mean(1, dtype=np.float64) for block in blocks])


def greedy_mmd(vectors: np.ndarray, count: int, seed: int = 0) -> list[int]:
    """The first `count` of (n, d) rows, each the one that leaves the least MMD between them and all of the rows.

    With k(x, x) = 1 that is the least sum of k(s, x) over the chosen s, over one more than their number, minus x's mean
    kernel with all rows.
    """
    means = mean_kernel(vectors, _reference(vectors, seed))
    near = np.zeros(len(vectors))
    chosen: list[int] = []
    for number in range(min(count, len(vectors))):
        chosen.append(int((near / (number + 1) - means).argmin()))
        near += kernel(vectors, vectors[chosen[-1], None])[:, 0]
        near[chosen[-1]] = np.inf
    return chosen


def _turns(clusters: StateClusters, reach: dict[str, float], seed: int) -> Iterator[dict[str, Any]]:
    for cluster in clusters:
        name = _name(cluster.number)
        order = _order(cluster, reach[name], seed)
        turn = np.arange(len(order), dtype=float)
        yield {"position": cluster.positions[order], "stratum": np.full(len(order), name), "turn": turn}


def _order(cluster: StateCluster, cost: float, seed: int) -> np.ndarray:
    """(n,) the rows of a cluster in turn: by MMD as far as `cost` may reach, the others as they are drawn."""
    cheapest = np.sort(cluster.costs).cumsum()
    count = int(np.searchsorted(cheapest, cost, side="right")) + 1
    first = greedy_mmd(cluster.vectors, count, seed)
    drawn = np.random.default_rng((seed, cluster.number)).permutation(len(cluster.positions))
    return np.array([*first, *drawn[~np.isin(drawn, first)]], dtype=int)


def _reference(vectors: np.ndarray, seed: int) -> np.ndarray:
    if len(vectors) <= REFERENCE:
        return vectors
    return vectors[np.sort(np.random.default_rng(seed).choice(len(vectors), REFERENCE, replace=False))]


def _name(number: int) -> str:
    return f"cluster {number}"
