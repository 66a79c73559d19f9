"""The policy `semdedup`: rows that mean what a row before them means go last (SemDeDup, arXiv 2303.09540).

Rows are clustered by k-means, and in each cluster put in order of their cosine with its centroid, the lowest first: of
several alike ones the paper keeps the farthest from the centroid (`keep: near` the nearest). A row's score is its
largest cosine with a row before it, and rows above a threshold, 1 - epsilon in the paper, are left out. The threshold
is the one that meets the budget: rows with the lowest scores are taken, equal ones as they are drawn.

The paper embeds with CLIP or a language model of its own; here a row is described by the states that scoring kept of it
(vfl.select.choose.states).
"""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from vfl.select.choose.allocation import Tier
from vfl.select.choose.clusters import insert_pieces
from vfl.select.choose.states import StateClusters, state_clusters

ALL = "all"
BLOCK = 1024
"""Rows that are compared with those before them at a time."""


class SemdedupConfig(BaseModel):
    """What the policy `semdedup` keeps of rows that are alike."""

    model_config = ConfigDict(extra="forbid")

    keep: Literal["far", "near"] = Field(default="far", description="from the cluster's centroid: which row stays")
    clusters: int | None = Field(default=None, ge=1, description="default: one for each 66 rows, at most 1,000")


def semdedup(connection: Any, pool: str, config: SemdedupConfig, *, seed: int) -> list[Tier]:
    """Write the table `placed(position, stratum, turn)`, the turn a row's largest cosine with a row before it.

    Args:
        pool: view of the rows that may be chosen.
    """
    clusters = state_clusters(connection, pool, number=config.clusters, seed=seed)
    insert_pieces(connection, "placed", _turns(clusters, config.keep))
    return [Tier({ALL: 1.0})]


def _turns(clusters: StateClusters, keep: str) -> Iterator[dict[str, Any]]:
    for cluster in clusters:
        near = cluster.vectors @ clusters.centroids[cluster.number].astype(np.float32)
        order = np.argsort(near if keep == "far" else -near, kind="stable")
        turn = largest_before(cluster.vectors[order])
        yield {"position": cluster.positions[order], "stratum": np.full(len(order), ALL), "turn": turn}


def largest_before(vectors: np.ndarray) -> np.ndarray:
    """(n,) each row's largest cosine with an earlier one of (n, d) rows of length 1; -1 of the first."""
    largest = np.full(len(vectors), -1.0)
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        for first in range(0, start + 1, BLOCK):
            cosines = block @ vectors[first : first + BLOCK].T
            if first == start:
                cosines[np.triu_indices(len(block))] = -1
            largest[start : start + BLOCK] = np.maximum(largest[start : start + BLOCK], cosines.max(1))
    return largest
