"""An order of rows whose pictures lie in parquet files, so that a row group is read once and not once a row.

Row groups are shuffled, and dealt to the processes that read rows (ranks times data loader workers), each of which gets
as many rows as the others. Each process shuffles the rows of a window of its row groups together, as in a shuffle
buffer, and then goes on to the next window. Batches come from the processes in turn, as PyTorch's data loader and
accelerate deal them. The order follows from the seed and the epoch alone, for as many processes as it was made for.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from torch.utils.data import Sampler

from vfl.data.cell import MOST_KEPT

WINDOW = MOST_KEPT // 2
"""Bytes of the row groups whose rows are shuffled together; the next ones find room beside them."""
_BATCH = 10_000


@dataclass(frozen=True)
class RowGroup:
    """Rows of a training set that are read together.

    Attributes:
        rows: their numbers, ascending; a row that comes several times in an epoch is in as many groups.
        size: bytes that are held for them.
    """

    rows: list[int]
    size: int


def row_groups(rows: Dataset) -> list[RowGroup]:
    """The row groups of all rows, in the order of their first rows; a row without a cell is a group by itself."""
    places = np.concatenate([_places(table, start) for table, start in _tables(rows)])
    files = {name: number for number, name in enumerate(dict.fromkeys(places["file"].tolist()))}
    codes = np.array([files[name] for name in places["file"].tolist()], dtype=np.int64)
    number = np.arange(len(places))
    same = np.lexsort((number, places["row"], places["group"], codes))
    # How often a row came before: each time it belongs to a group of its own, which is read again.
    key = np.stack([codes, places["group"], places["row"]])[:, same]
    first = np.r_[True, np.any(key[:, 1:] != key[:, :-1], axis=0)]
    start = np.maximum.accumulate(np.where(first, number, 0))
    times = np.empty(len(places), dtype=np.int64)
    times[same] = number - start
    members: dict[tuple[int, int, int], list[int]] = {}
    for n, key_of in enumerate(zip(codes.tolist(), places["group"].tolist(), times.tolist(), strict=True)):
        members.setdefault(key_of, []).append(n)
    sizes = places["size"]
    return [RowGroup(rows_of, int(sizes[rows_of].max())) for rows_of in members.values()]


def in_turn_of_groups(
    groups: Sequence[RowGroup], batch: int, readers: int, rng: Random | None = None, window: int = WINDOW
) -> list[int]:
    """All rows in an order in which each reader goes through row groups of its own.

    Args:
        groups: of the rows.
        batch: rows that a reader takes at a time.
        readers: processes; batch n is of the reader n modulo their number.
        rng: shuffles; None: rows come in their order, as far as the readers' turns allow.
        window: bytes of the row groups whose rows are shuffled together.
    """
    turns = list(range(len(groups)))
    if rng is not None:
        rng.shuffle(turns)
    shares: list[list[RowGroup]] = [[] for _ in range(readers)]
    counts = [0] * readers
    for turn in turns:
        reader = counts.index(min(counts))
        shares[reader].append(groups[turn])
        counts[reader] += len(groups[turn].rows)
    return _interleaved([list(_rows_of(share, rng, window)) for share in shares], batch)


class GroupedOrder(Sampler[int]):
    """An order for each epoch; see `in_turn_of_groups`.

    Args:
        groups: of the training set.
        batch: rows that a process takes at a time.
        readers: processes that read rows, over all ranks.
        seed: of the run.

    Attributes:
        epoch: whose order comes next.
    """

    def __init__(self, groups: Sequence[RowGroup], batch: int, readers: int, seed: int) -> None:
        self.groups, self.batch, self.readers, self.seed = groups, batch, readers, seed
        self.epoch = 0

    def __len__(self) -> int:
        return sum(len(group.rows) for group in self.groups)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order())

    def order(self) -> list[int]:
        """The rows of the epoch."""
        return in_turn_of_groups(self.groups, self.batch, self.readers, Random(f"groups/{self.seed}/{self.epoch}"))

    def sentence(self) -> str:
        """For preflight and card: what is shuffled together."""
        held = [group for group in self.groups if group.size]
        if not held:
            return "no picture lies in a parquet file, so all rows are shuffled together"
        mean = sum(group.size for group in held) / len(held)
        together = max(1, min(round(WINDOW / mean), len(held) // self.readers))
        return (
            f"pictures are read from {len(held):,} row groups of {mean / 2**20:,.1f} MiB on average, where they lie; "
            f"the row groups are shuffled, and then the rows of about {together:,} at a time, in each of "
            f"{self.readers:,} reading process{'' if self.readers == 1 else 'es'}"
        )


def _rows_of(share: Sequence[RowGroup], rng: Random | None, window: int) -> Iterator[int]:
    """The rows of a reader, a window at a time."""
    together: list[int] = []
    size = 0
    for group in share:
        if together and size + group.size > window:
            yield from _mixed(together, rng)
            together, size = [], 0
        together += group.rows
        size += group.size
    yield from _mixed(together, rng)


def _mixed(rows: list[int], rng: Random | None) -> list[int]:
    return rows if rng is None else rng.sample(rows, len(rows))


def _interleaved(streams: Sequence[Sequence[int]], batch: int) -> list[int]:
    """A batch of each stream in turn; where one is through, the one with the most left goes on in its place."""
    left = [len(stream) for stream in streams]
    order: list[int] = []
    turn = 0
    while any(left):
        wanted, reader = batch, turn % len(streams)
        while wanted and any(left):
            if not left[reader]:
                reader = left.index(max(left))
            begin = len(streams[reader]) - left[reader]
            taken = min(wanted, left[reader])
            order += streams[reader][begin : begin + taken]
            left[reader] -= taken
            wanted -= taken
        turn += 1
    return order


_PLACE = [("file", object), ("group", np.int64), ("row", np.int64), ("size", np.int64)]


def _tables(rows: Dataset) -> Iterator[tuple[pa.Table, int]]:
    start = 0
    for table in rows.select_columns(["images"]).with_format("arrow").iter(_BATCH):
        yield table, start
        start += table.num_rows


def _places(table: pa.Table, start: int) -> np.ndarray:
    """Where each row lies: the file and row group of its first picture in a cell, else its own number.

    Its size is that of all columns there that it has pictures in.
    """
    places = np.zeros(table.num_rows, dtype=_PLACE)
    places["file"], places["group"] = "", np.arange(start, start + table.num_rows)
    images = table.column("images").combine_chunks()
    flat, parents = images.flatten(), pc.list_parent_indices(images)
    columns = [pc.struct_field(flat, name).to_pylist() for name in ("path", "group", "row", "keys", "size")]
    counted: set[tuple[int, str]] = set()
    for row, path, group, inside, keys, size in zip(parents.to_pylist(), *columns, strict=True):
        if group is None:
            continue
        if not places["file"][row]:
            places[row] = (path, group, inside, 0)
        column = (row, str(json.loads(keys)[0]))
        if (places["file"][row], places["group"][row]) == (path, group) and column not in counted:
            counted.add(column)
            places["size"][row] += size
    return places
