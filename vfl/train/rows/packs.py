"""Several short rows in one sequence: which rows lie together, and batches of them.

Rows are dealt by first-fit decreasing, a window at a time: of the rows in a shuffled order, the window's longest first,
each into the first pack that has room for it (Johnson et al., SIAM J. Comput. 3(4), 1974: at most 11/9 of the fewest
packs, and a few). Packs stay as they are for the whole run, and their order changes with the epoch, so that all epochs
have the same number of steps.
"""

from collections.abc import Sequence
from random import Random

import torch
from datasets import Dataset as HFDataset
from torch.utils.data import Dataset

from vfl.train.rows.collate import Collator, Row

PACKS = "packs"
"""Of a batch of packed rows: (R,) the pack that each row lies in, counted within the batch."""
WINDOW = 512
"""Rows that are sorted by length together; what is dealt is near to shuffled all the same."""


def pack_rows(lengths: Sequence[int], limit: int, seed: int) -> list[list[int]]:
    """Rows of each pack, every row once; no pack has more than `limit` tokens.

    Args:
        lengths: tokens of each row, none above the limit.
        limit: most tokens of a pack.
        seed: shuffles the rows before they are dealt.
    """
    order = list(range(len(lengths)))
    Random(f"packs/{seed}").shuffle(order)
    packs: list[list[int]] = []
    for start in range(0, len(order), WINDOW):
        window: list[list[int]] = []
        room: list[int] = []
        for row in sorted(order[start : start + WINDOW], key=lambda row: -lengths[row]):
            length = lengths[row]
            place = next((number for number, left in enumerate(room) if left >= length), None)
            if place is None:
                place = len(window)
                window.append([])
                room.append(limit)
            window[place].append(row)
            room[place] -= length
        packs += window
    return packs


class Packs(Dataset[list[Row]]):
    """A training set of packs; an item is the rows of one.

    Args:
        rows: the training set, with a column of lengths.
        limit: most tokens of a pack.
        seed: of `pack_rows`.

    Attributes:
        packs: numbers of the rows in each.
        tokens: of each.
    """

    def __init__(self, rows: HFDataset, limit: int, seed: int) -> None:
        lengths = rows["length"][:]
        self.rows, self.limit = rows, limit
        self.packs = pack_rows(lengths, limit, seed)
        self.tokens = [sum(lengths[row] for row in pack) for pack in self.packs]

    def __len__(self) -> int:
        return len(self.packs)

    def __getitem__(self, number: int) -> list[Row]:
        return [self.rows[row] for row in self.packs[number]]

    def longest(self, count: int) -> list[int]:
        """Numbers of the packs with the most tokens."""
        return sorted(range(len(self)), key=lambda number: -self.tokens[number])[:count]

    def sentence(self) -> str:
        """For preflight and card: how many packs, and how full they are."""
        full = sum(self.tokens) / (len(self) * self.limit)
        packs = f"{len(self):,} pack{'' if len(self) == 1 else 's'} of at most {self.limit:,} tokens"
        return (
            f"{len(self.rows):,} rows in {packs}, {len(self.rows) / len(self):.1f} rows and {full:.0%} full on average"
        )

    def warnings(self) -> tuple[str, ...]:
        """That no rows lie together, with what to do about it."""
        if len(self) < len(self.rows):
            return ()
        return (f"No two rows fit into a pack of {self.limit:,} tokens: raise data.max_length, or leave packing out.",)


class PackedCollator:
    """Batches of packs: their rows as `collate` lays them out, one behind another, and which pack each belongs to.

    The trainer lays the rows into their packs (`vfl.train.packed`): it has the model, which counts positions.
    """

    def __init__(self, collate: Collator) -> None:
        self.collate = collate

    def __call__(self, packs: Sequence[Sequence[Row]]) -> dict[str, torch.Tensor]:
        batch = self.collate([row for rows in packs for row in rows])
        numbers = [number for number, rows in enumerate(packs) for _ in rows]
        added = len(batch["input_ids"]) - len(numbers)  # a blank row
        return {**batch, PACKS: torch.tensor(numbers + numbers[-1:] * added)}
