"""How long a scoring run will take and what memory it needs, told by its first batches."""

import torch

from vfl.engine.memory import peak_memory
from vfl.io.durations import duration

WARM = 1
"""Batches that are not timed, where others follow: the first one waits for what is set up once."""
TIMED = 2


class Pace:
    """Times the first batches."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, float]] = []  # tokens, seconds
        self.tokens_a_row: float | None = None  # of the first part

    def add(self, tokens: int, seconds: float) -> None:
        """A batch of so many tokens, padding included."""
        if len(self.batches) <= TIMED:
            self.batches.append((tokens, seconds))

    def seconds_a_row(self, *, ended: bool = False) -> float | None:
        """About how long a row takes; None before enough is known. `ended`: a part is done, no more batches come."""
        known = len(self.batches) >= WARM + TIMED or (ended and self.batches)
        if not known or self.tokens_a_row is None:
            return None
        timed = self.batches[WARM:] or self.batches
        return self.tokens_a_row * sum(seconds for _, seconds in timed) / sum(tokens for tokens, _ in timed)


def told(seconds_a_row: float, rows: int, processes: int, device: torch.device) -> str:
    """The line that a person reads before the long part of a run."""
    rate = 1 / max(seconds_a_row, 1e-9)
    shared = f" by {processes} processes" if processes > 1 else ""
    return (
        f"{rows:,} rows are left: about {duration(rows * seconds_a_row / processes)} at {rate:,.3g} rows a second and"
        f" process{shared}. Memory so far, the longest rows first: {peak_memory(device)}."
    )
