"""How long a scoring run will take and what memory it needs, told by its first batches."""

import resource
import sys

import torch

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
        f" process{shared}. Memory so far, the longest rows first: {_memory(device)}."
    )


def duration(seconds: float) -> str:
    """Such as 40 s, 12 min, 3.5 h, 2.1 days."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.0f} s"


def _memory(device: torch.device) -> str:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    own = f"{peak / 1e9:.1f} GB"
    if device.type != "cuda":
        return own
    return f"{torch.cuda.max_memory_allocated(device) / 1e9:.1f} GB on the GPU, {own} beside it"
