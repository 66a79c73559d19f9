"""The layer rule: from significance per block to the layers of a function (docs/map-format.md states it in words)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from vfl.io.layers import runs
from vfl.locate.curves import LayerSpan
from vfl.stats import Bools, Floats, holm

WIDTHS = (2, 3)  # windows that are swept
ChosenBy = Literal["single", "window", "range", "user", "nothing"]


class ChoiceConfig(BaseModel):
    """The numbers of the layer rule."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alpha: float = Field(default=0.05, gt=0, lt=1, description="family-wise error over the layers of a function (Holm)")
    half: float = Field(default=0.5, gt=0, le=1, description="a chosen layer reaches this share of the peak")
    cap: int = Field(default=3, ge=1, description="most layers around one peak, unless distributed")
    distributed_above: float = Field(
        default=0.25, gt=0, le=1, description="share of the depth above which a function is distributed"
    )
    margin: float = Field(
        default=0.2, gt=0, le=1, description="a block is named when its rate exceeds its parts by this"
    )
    floor: float = Field(
        default=0.05, ge=0, lt=1, description="a rate below this is never a function; the noise without control"
    )
    min_kept: int = Field(default=20, ge=1, description="fewer kept pairs are a warning")
    bootstrap: int = Field(
        default=500, ge=0, description="resamples of the pairs for the stability of each chosen layer"
    )
    seed: int = Field(default=0, ge=0, description="of the bootstrap and the permutations")
    equivalence: float = Field(
        default=0.1, gt=0, lt=1, description="a layer shown to change fewer of the answers than this is not read"
    )
    permutations: int = Field(
        default=1999, ge=0, description="permutations of the layers within pairs, the null of a layer that stands out"
    )


@dataclass(frozen=True)
class Choice:
    """Layers chosen from one sample of pairs."""

    layers: tuple[int, ...] = ()
    distributed: bool = False
    chosen_by: ChosenBy = "nothing"
    named: tuple[LayerSpan, ...] = ()  # blocks whose joint swap did what their parts alone do not
    spread: bool = False  # range only: lower and upper layers each change half the answers


@dataclass(frozen=True)
class Families:
    """The columns of the blocks, by the family over which Holm's correction runs."""

    blocks: tuple[LayerSpan, ...]
    num_layers: int
    windows: tuple[int, ...]
    ends: tuple[int, ...]  # prefixes and suffixes; each list is tested only if it is complete

    @classmethod
    def of(cls, blocks: Sequence[LayerSpan], num_layers: int) -> "Families":
        column = {block: n for n, block in enumerate(blocks)}
        windows = [b for b in window_blocks(num_layers) if b in column]
        ends = end_blocks(num_layers)
        complete = all(b in column for b in ends)
        return cls(
            blocks=tuple(blocks),
            num_layers=num_layers,
            windows=tuple(column[b] for b in windows),
            ends=tuple(column[b] for b in ends if complete),
        )


def single_blocks(num_layers: int) -> list[LayerSpan]:
    """Every layer alone."""
    return [(k, k) for k in range(num_layers)]


def window_blocks(num_layers: int, widths: Sequence[int] = WIDTHS) -> list[LayerSpan]:
    """Every window of the widths, narrow ones first."""
    return [(a, a + width - 1) for width in widths for a in range(num_layers - width + 1)]


def end_blocks(num_layers: int) -> list[LayerSpan]:
    """Every prefix 0..k and every suffix k..L-1, the whole depth once."""
    return [(0, k) for k in range(num_layers)] + [(k, num_layers - 1) for k in range(1, num_layers)]


def significant(families: Families, excess: Floats, p: Floats, config: ChoiceConfig) -> Bools:
    """(S, B): above the control by Holm within its family, and a rate worth the name. Blocks of no family: p alone."""
    out = p <= config.alpha
    # Windows and ends overlap (0..1 is both, 0..0 a single layer): the single layers' verdict is written last.
    for columns in (families.ends, families.windows, tuple(range(families.num_layers))):
        out[:, list(columns)] = holm(p[:, list(columns)], config.alpha)
    return np.asarray(out & (excess >= config.floor))


def choose(families: Families, excess: Floats, above: Bools, config: ChoiceConfig) -> Choice:
    """Apply the rule to one sample: `excess` and `above` (significant), both (B,)."""
    depth = families.num_layers
    windows = _redundant_windows(families, excess, above, config.margin)
    singles = [k for k in range(depth) if above[k]]
    if not singles and not windows:
        return _from_ends(families, excess, above, config)

    peak = max(excess[c] for c in [*singles, *windows])
    singles = [k for k in singles if excess[k] >= config.half * peak]
    windows = [c for c in windows if excess[c] >= config.half * peak]
    in_windows = {k for c in windows for k in layers_in(families.blocks[c])}
    distributed = len(in_windows | set(singles)) > config.distributed_above * depth
    if not distributed:
        singles = [k for run in runs(singles) for k in _cap(run, excess, config.cap)]
    return Choice(
        layers=tuple(sorted(in_windows | set(singles))),
        distributed=distributed,
        chosen_by="window" if in_windows - set(singles) else "single",
        named=tuple(families.blocks[c] for c in windows),
    )


def layers_in(block: LayerSpan) -> range:
    return range(block[0], block[1] + 1)


def _cap(run: list[int], excess: Floats, cap: int) -> list[int]:
    """The `cap` neighbours that hold the run's peak and change most together."""
    if len(run) <= cap:
        return run
    peak = max(range(len(run)), key=lambda n: excess[run[n]])
    starts = range(max(0, peak - cap + 1), min(peak, len(run) - cap) + 1)
    best = max(starts, key=lambda s: sum(excess[k] for k in run[s : s + cap]))
    return run[best : best + cap]


def _redundant_windows(families: Families, excess: Floats, above: Bools, margin: float) -> list[int]:
    """Columns of windows whose joint swap exceeds every single layer and narrower window inside them by the margin."""
    rates = {families.blocks[c]: float(excess[c]) for c in (*range(families.num_layers), *families.windows)}

    def bestinside(block: LayerSpan) -> float:
        return max(rate for part, rate in rates.items() if inside(part, block))

    return [c for c in families.windows if above[c] and excess[c] - bestinside(families.blocks[c]) >= margin]


def inside(inner: LayerSpan, outer: LayerSpan) -> bool:
    """Whether a block is part of another, and not all of it."""
    return outer[0] <= inner[0] and inner[1] <= outer[1] and inner != outer


def _from_ends(families: Families, excess: Floats, above: Bools, config: ChoiceConfig) -> Choice:
    """Where neither layers nor windows do anything alone: the overlap of the shortest prefix and suffix that do.

    A function that any of the layers a..b can serve changes only once all of them are swapped: the prefix 0..k first at
    k = b, the suffix k..L-1 last at k = a.
    """
    depth = families.num_layers
    if not families.ends:
        return Choice()
    prefix = list(families.ends[:depth])
    suffix = [prefix[-1], *families.ends[depth:]]  # from layer 0 on it is the whole depth, the last prefix
    top = float(excess[list(families.ends)].max())

    def rises(share: float) -> tuple[int, int] | None:
        """The end of the shortest prefix and the start of the shortest suffix that reach this share of the maximum."""
        reached = above & (excess >= share * top)
        if not (reached[prefix].any() and reached[suffix].any()):
            return None
        return int(np.flatnonzero(reached[prefix])[0]), int(np.flatnonzero(reached[suffix])[-1])

    if top < config.margin or (rise := rises(config.half)) is None:
        return Choice()
    end, start = rise
    # The overlap start..end holds what both ends need. Where it is empty, or so short that it was swapped as a window
    # and found wanting, parts of the model each do half, as when every layer serves a few of the pairs. Then the range
    # lies between the points where half of that is reached.
    spread = end - start < max(WIDTHS)
    first, last = sorted(rises(config.half / 2) or rise) if spread else (start, end)
    return Choice(
        layers=tuple(range(first, last + 1)),
        distributed=last - first + 1 > config.distributed_above * depth,
        chosen_by="range",
        spread=spread,
    )
