"""What is there to find: every smallest set of layers whose swap changes most answers, whatever its shape.

Under one assumption, that a set changes what a part of it changes, the smallest sets are found without trying all 2^L:
*dualize and advance* (Gunopulos et al. 2003). The largest sets that hold none of the smallest sets known so far are
tried; one that changes the answers is shrunk, layer by layer, to another smallest set; when none does, all are known.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.localisation.asked import Kept
from vfl.engine.plan import Plan
from vfl.models.vlm import VLM

# Shares of the answers that a set changes. With 30 pairs the interval of MOST ends above a half.
MOST, SOME = 0.7, 0.1
LOSS = 0.2  # a layer is true if a smallest set for MOST loses this much without it; what it adds less to is grey
# Where five layers and more are needed, it is the disturbed rest of the model that changes the answers: these are grey.
WIDEST = 4
Layers = frozenset[int]
Rate = Callable[[Sequence[Layers]], list[float]]


@dataclass(frozen=True)
class Truth:
    """Of one function.

    Attributes:
        sets: the smallest sets whose swap changes MOST of the answers, the largest share first.
        rates: the share that each changes.
        losses: for each set, what it loses without each of its layers.
        some: layers of the smallest sets for SOME of the answers.
        asked: sets that were swapped to know it.
        broken: tried pairs of sets of which the smaller one changed MOST and the larger one did not.
        pairs: kept pairs that it was measured on.
    """

    sets: list[list[int]]
    rates: list[float]
    losses: list[list[float]]
    some: list[int]
    asked: int
    broken: int
    pairs: int

    @property
    def layers(self) -> list[int]:
        """The true ones: what a set of at most WIDEST layers loses at least LOSS without."""
        narrow = [both for both in zip(self.sets, self.losses, strict=True) if len(both[0]) <= WIDEST]
        return sorted({n for layers, losses in narrow for n, loss in zip(layers, losses, strict=True) if loss >= LOSS})

    @property
    def grey(self) -> list[int]:
        """Other layers of any set: neither right nor wrong to name."""
        return sorted({*self.some, *(layer for layers in self.sets for layer in layers)} - set(self.layers))

    @property
    def identifiable(self) -> bool:
        """Whether each true layer is in a set of neighbours, so that swapping a run of layers can show it."""
        runs = [set(layers) for layers in self.sets if max(layers) - min(layers) + 1 == len(layers) <= WIDEST]
        return bool(self.layers) and set(self.layers) <= set().union(*runs)


def truth_of(vlm: VLM, kept: Sequence[Kept]) -> Truth:
    """The truth about one function by its kept pairs."""
    known: dict[Layers, float] = {}

    def rate(sets: Sequence[Layers]) -> list[float]:
        new = list(dict.fromkeys(layers for layers in sets if layers not in known))
        if new:
            changed = [pair.changed(vlm, [Plan.swap(layers, pair.other) for layers in new]) for pair in kept]
            known.update(zip(new, np.mean(changed, axis=0).tolist(), strict=True))
        return [known[layers] for layers in sets]

    most = smallest_sets(vlm.num_layers, rate, MOST)
    some = smallest_sets(vlm.num_layers, rate, SOME)
    most.sort(key=lambda layers: (-known[layers], sorted(layers)))
    return Truth(
        sets=[sorted(layers) for layers in most],
        rates=[round(known[layers], 3) for layers in most],
        losses=[[round(known[layers] - rate([layers - {n}])[0], 3) for n in sorted(layers)] for layers in most],
        some=sorted(frozenset().union(*some)),
        asked=len(known),
        broken=sum(a < b and known[a] >= MOST > known[b] for a in known for b in known),
        pairs=len(kept),
    )


def smallest_sets(num_layers: int, rate: Rate, threshold: float) -> list[Layers]:
    """All sets with a rate of at least `threshold` of which no part has one."""
    found: list[Layers] = []
    while True:
        candidates = largest_without(num_layers, found)
        above = [layers for layers, share in zip(candidates, rate(candidates), strict=True) if share >= threshold]
        new = {shrunk(layers, rate, threshold) for layers in above} - set(found)
        if not new:
            return found
        # Shrinking goes one way through a set; of nested results the larger is not a smallest one.
        found = minimal([*found, *new])


def shrunk(layers: Layers, rate: Rate, threshold: float) -> Layers:
    """A part of the layers that still reaches the threshold, and loses it without any one of its layers."""
    while layers:
        parts = [layers - {layer} for layer in sorted(layers)]
        shares = rate(parts)
        best = max(range(len(parts)), key=shares.__getitem__)
        if shares[best] < threshold:
            break
        layers = parts[best]
    return layers


def minimal(sets: Iterable[Layers]) -> list[Layers]:
    """Those that contain no other."""
    each = set(sets)
    return [layers for layers in each if not any(other < layers for other in each)]


def largest_without(num_layers: int, sets: Sequence[Layers]) -> list[Layers]:
    """The largest sets of layers that hold none of `sets`: the complements of these sets' smallest transversals."""
    transversals: list[Layers] = [frozenset()]
    for layers in sets:  # Berge's algorithm: a set at a time
        hit = [chosen for chosen in transversals if chosen & layers]
        grown = [chosen | {layer} for chosen in transversals if not chosen & layers for layer in layers]
        transversals = minimal([*hit, *grown])
    every = frozenset(range(num_layers))
    return [every - chosen for chosen in transversals]
