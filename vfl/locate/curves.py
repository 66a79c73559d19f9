"""From records to per-layer curves of one function.

Legend: P kept pairs, G groups of them, B swapped blocks, L layers.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vfl.errors import InputError
from vfl.stats import Bools, Floats, clustered_wilson

LayerSpan = tuple[int, int]


@dataclass(frozen=True)
class Outcomes:
    """What each kept pair of one function did under each block; NaN where that swap was not run for that pair."""

    function: str
    num_layers: int
    pairs: int
    accuracy: float
    pair_ids: tuple[str, ...]  # the kept ones, sorted: results do not depend on the order of the records
    blocks: tuple[LayerSpan, ...]  # the single layers first, in order
    changed: Floats  # (P, B) 0 | 1
    followed: Floats  # (P, B) 0 | 1
    control: Floats  # (P, B) 0 | 1: changed under the control swap
    effect: Floats  # (P, B) drop of the log-odds of answer against source answer
    unfiltered: Floats | None  # (L,) changed rate over all pairs, kept or not; None where only kept ones were swept
    groups: tuple[str, ...] = ()  # of each kept pair, its scene's; empty where all pairs are of their own

    @property
    def kept(self) -> int:
        return len(self.pair_ids)

    @property
    def swept(self) -> Bools:
        """(L,) layers that were swapped; a screen may have left others out."""
        return np.asarray(~np.isnan(self.changed[:, : self.num_layers]).all(axis=0))

    @cached_property
    def group_of(self) -> NDArray[np.intp]:
        """(P,) the number of each kept pair's group."""
        if not self.groups:
            return np.arange(self.kept)
        return np.unique(self.groups, return_inverse=True)[1]

    @property
    def samples(self) -> int:
        """Kept groups G: what is independent of each other; as many as pairs where these are of their own."""
        return int(self.group_of.max()) + 1

    def by_group(self, values: Floats) -> Floats:
        """(P, B) -> (G, B): sums over the pairs of each group."""
        totals = np.zeros((self.samples, values.shape[1]))
        np.add.at(totals, self.group_of, values)
        return totals


@dataclass(frozen=True)
class Curves:
    """Rates over kept pairs, one number a layer, all (L,); NaN for layers that were not swept."""

    changed: Floats
    ci_low: Floats
    ci_high: Floats
    followed: Floats
    followed_low: Floats
    followed_high: Floats
    control: Floats | None
    effect: Floats | None


def outcomes(
    records: pa.Table, function: str, num_layers: int, skipped: Collection[LayerSpan] = frozenset()
) -> Outcomes:
    """The records of one function as arrays.

    Args:
        skipped: blocks that a screen left out. They have columns of NaN, so that tests count them as not significant,
            whatever the records hold of them.

    Raises:
        InputError: the function has no records, none of its pairs was kept, or a kept pair lacks a single-layer swap.
    """
    rows = records.filter(pc.field("function") == function)
    if not rows.num_rows:
        raise InputError(f"The records hold nothing for function {function!r}.")
    ids = sorted(pc.unique(rows["pair_id"]).to_pylist())
    row_of = pc.index_in(rows["pair_id"], value_set=pa.array(ids, pa.string())).to_numpy()
    first, last = (rows[name].to_numpy().astype(int) for name in ("first", "last"))
    swap = np.array(rows["swap"].to_pylist())
    is_swap = swap != "none"
    if (outside := is_swap & ((first < 0) | (last >= num_layers) | (first > last))).any():
        k = int(np.argmax(outside))
        swapped = f"{first[k]}..{last[k]}"
        raise InputError(f"The records of {function} swap layers {swapped}; the model has {num_layers} layers.")

    singles = [(k, k) for k in range(num_layers)]
    wider = sorted({*skipped, *zip(first[is_swap].tolist(), last[is_swap].tolist(), strict=True)} - set(singles))
    blocks = tuple(singles + wider)
    number = {block: column for column, block in enumerate(blocks)}
    column_of = np.array([number.get((a, b), -1) for a, b in zip(first.tolist(), last.tolist(), strict=True)])

    def spread(values: Floats, which: str) -> Floats:
        matrix = np.full((len(ids), len(blocks)), np.nan)
        here = swap == which
        matrix[row_of[here], column_of[here]] = values[here]
        matrix[:, [number[block] for block in skipped]] = np.nan
        return matrix

    changed = spread(_numbers(rows["changed"]), "source")
    log_odds = _numbers(rows["logprob_answer"]) - _numbers(rows["logprob_source_answer"])
    unswapped = np.full(len(ids), np.nan)
    unswapped[row_of[~is_swap]] = log_odds[~is_swap]

    kept_column, correct_column = np.zeros(len(ids), bool), np.zeros(len(ids))
    kept_column[row_of] = _numbers(rows["kept"]) > 0
    correct_column[row_of] = _numbers(rows["target_correct"])
    kept = np.flatnonzero(kept_column)
    if not kept.size:
        raise InputError(
            f"No pair of {function} was kept: the model answered none of {len(ids)} pairs correctly on both images "
            f"({correct_column.mean():.0%} of the target images). Its layers for {function} cannot be located; "
            "leave the function out, or use probes that the model can answer."
        )
    swept = [k for k in range(num_layers) if (k, k) not in skipped]
    for k in swept:
        if np.isnan(changed[kept, k]).any():
            lacking = ids[kept[np.isnan(changed[kept, k])][0]]
            raise InputError(
                f"Pair {lacking} of {function} has no record of layer {k} swapped: the sweep is unfinished. "
                "Run the same command with --resume."
            )
    return Outcomes(
        function=function,
        num_layers=num_layers,
        pairs=len(ids),
        accuracy=float(correct_column.mean()),
        pair_ids=tuple(ids[p] for p in kept),
        blocks=blocks,
        changed=changed[kept],
        followed=spread(_numbers(rows["followed_source"]), "source")[kept],
        control=spread(_numbers(rows["changed"]), "control")[kept],
        effect=(unswapped[:, None] - spread(log_odds, "source"))[kept],
        unfiltered=None if np.isnan(changed[:, swept]).any() else changed[:, :num_layers].mean(0),
        groups=_groups(rows, [ids[p] for p in kept]),
    )


def _groups(rows: pa.Table, kept: Sequence[str]) -> tuple[str, ...]:
    """The group of each kept pair; empty where none has one."""
    if rows["group"].null_count == rows.num_rows:
        return ()
    named = dict(zip(rows["pair_id"].to_pylist(), rows["group"].to_pylist(), strict=True))
    return tuple(f"pair {pair}" if named[pair] is None else f"group {named[pair]}" for pair in kept)


def curves(data: Outcomes) -> Curves:
    """The single-layer curves over kept pairs, with Wilson 95 % intervals (clustered by group)."""
    single = slice(0, data.num_layers)
    swept = data.swept

    def of_all(values: Floats) -> Floats:
        out = np.full(data.num_layers, np.nan)
        out[swept] = values
        return out

    changed, followed = data.changed[:, single][:, swept], np.nan_to_num(data.followed[:, single][:, swept])
    low, high = clustered_wilson(changed, data.group_of.tolist())
    followed_low, followed_high = clustered_wilson(followed, data.group_of.tolist())
    return Curves(
        changed=of_all(changed.mean(0)),
        ci_low=of_all(low),
        ci_high=of_all(high),
        followed=of_all(followed.mean(0)),
        followed_low=of_all(followed_low),
        followed_high=of_all(followed_high),
        control=_mean_if_whole(data.control[:, single], swept),
        effect=_mean_if_whole(np.where(np.isfinite(data.effect[:, single]), data.effect[:, single], np.nan), swept),
    )


def _mean_if_whole(values: Floats, swept: Bools) -> Floats | None:
    """Column means without NaN; None if a column that was swept has nothing else."""
    if np.isnan(values[:, swept]).all(axis=0).any():
        return None
    means = np.full(values.shape[1], np.nan)
    means[swept] = np.nanmean(values[:, swept], axis=0)
    return means


def _numbers(column: pa.ChunkedArray) -> Floats:
    """Booleans and numbers as float64, empty cells as NaN."""
    values: Floats = pc.fill_null(pc.cast(column, pa.float64()), float("nan")).to_numpy()
    return values
