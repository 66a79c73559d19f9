"""Sweep records of simulated models whose serving layers are known, for the tests of curves, choices and reports."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from vfl.locate.curves import Outcomes
from vfl.locate.records import table_of

Block = tuple[int, int]


@dataclass
class Fake:
    """One simulated function. `rate(first, last)`: the chance that swapping the block changes an answer."""

    rate: Callable[[int, int], float]
    disruption: Callable[[int, int], float] = lambda first, last: 0.0
    pairs: int = 60
    accuracy: float = 1.0
    control: bool = True
    question: str = "How many?"
    blocks: list[Block] = field(default_factory=list)  # beyond the single layers
    group: int = 0  # pairs of each group, which share their fate; 0 for pairs of their own


def sharp(layer: int, rate: float = 0.9) -> Callable[[int, int], float]:
    return lambda first, last: rate if first <= layer <= last else 0.0


def redundant(first: int, last: int, rate: float = 0.9) -> Callable[[int, int], float]:
    """Any layer of first..last can serve alone: only swapping all of them changes the answer."""
    return lambda a, b: rate if a <= first and last <= b else 0.0


def additive(first: int, last: int, each: float) -> Callable[[int, int], float]:
    """Each layer of first..last serves its own share of the pairs."""
    return lambda a, b: min(1.0, each * max(0, min(b, last) - max(a, first) + 1))


def records(functions: dict[str, Fake], num_layers: int = 12, seed: int = 0) -> pa.Table:
    """A pair's fate is one uniform number: it changes under every block whose rate exceeds it, as in a real model a
    pair served by a layer changes under each block that holds the layer."""
    rng = np.random.default_rng(seed)
    rows = []
    for name, fake in functions.items():
        for n in range(fake.pairs):
            if not fake.group or n % fake.group == 0:
                fate, noise = rng.random(2)
            kept = n < round(fake.accuracy * fake.pairs)
            common = {
                "function": name,
                "pair_id": f"{name}-{n:04d}",
                "group": f"{name}-{n // fake.group}" if fake.group else None,
                "kept": kept,
                "target_correct": kept,
                "source_correct": True,
                "baseline_answer": "3" if kept else "8",
                "source_baseline": "5",
            }
            rows.append(common | _row("none", -1, -1, common["baseline_answer"], False, False, 0.0))
            for first, last in [*((k, k) for k in range(num_layers)), *fake.blocks]:
                followed = bool(fate < fake.rate(first, last))
                disrupted = bool(noise < fake.disruption(first, last))
                answer = "5" if followed else "?" if disrupted else common["baseline_answer"]
                strength = fake.rate(first, last)
                rows.append(common | _row("source", first, last, answer, followed or disrupted, followed, strength))
                if fake.control:
                    answer = "?" if disrupted else common["baseline_answer"]
                    rows.append(common | _row("control", first, last, answer, disrupted, False, 0.0))
    return table_of(rows)


def _row(swap: str, first: int, last: int, answer: str, changed: bool, followed: bool, strength: float) -> dict:
    return {
        "swap": swap,
        "first": first,
        "last": last,
        "answer": answer,
        "changed": changed,
        "followed_source": followed,
        "logprob_answer": -0.1 - 2 * strength,
        "logprob_source_answer": -4.0 + 2 * strength,
    }


def sample(changed: np.ndarray, control: np.ndarray, groups: tuple[str, ...] = ()) -> Outcomes:
    """(P, L) arrays of 0 | 1 as the outcomes of single layers."""
    num_pairs, num_layers = changed.shape
    return Outcomes(
        function="f",
        num_layers=num_layers,
        pairs=num_pairs,
        accuracy=1.0,
        pair_ids=tuple(f"{n:04d}" for n in range(num_pairs)),
        blocks=tuple((k, k) for k in range(num_layers)),
        changed=changed.astype(float),
        followed=changed.astype(float),
        control=control.astype(float),
        effect=changed.astype(float),
        unfiltered=changed.mean(0),
        groups=groups,
    )
