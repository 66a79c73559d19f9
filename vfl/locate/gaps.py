"""What lies between named layers: runs of unnamed ones are swapped together, and searched where that changes answers.

Single layers and windows of up to three can't show four layers that stand in for each other beside the layers that are
named: a swap of any three leaves the fourth. One swap of a whole run of unnamed layers shows that there are some.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vfl.io.layers import runs
from vfl.locate.curves import LayerSpan
from vfl.locate.layer_rule import WIDTHS, Choice, ChoiceConfig, layers_in
from vfl.stats import Floats, holm

WIDE = max(WIDTHS) + 1  # the widest window, swept in open gaps alone


@dataclass(frozen=True)
class Swept:
    """One sample's blocks: the rate beyond the control, and the p-value that it is above."""

    num_layers: int
    column: Mapping[LayerSpan, int]
    excess: Floats  # (B,)
    p: Floats  # (B,)

    def rate(self, block: LayerSpan) -> float:
        return float(self.excess[self.column[block]])


def gaps_of(layers: Sequence[int], num_layers: int) -> list[LayerSpan]:
    """Runs of layers that are not named, where these are longer than the windows that are swept anyway.

    There is none where nothing is named: prefixes and suffixes are swept then.
    """
    unnamed = runs(k for k in range(num_layers) if k not in layers) if layers else []
    return [(run[0], run[-1]) for run in unnamed if len(run) > max(WIDTHS)]


def wide_windows(gap: LayerSpan) -> list[LayerSpan]:
    """The windows of four layers in a gap."""
    return [(first, first + WIDE - 1) for first in range(gap[0], gap[1] - WIDE + 2)]


def gap_blocks(num_layers: int) -> tuple[list[LayerSpan], list[LayerSpan]]:
    """What a function of one named layer in the middle adds to a sweep: its gaps, and at most all windows of four."""
    return gaps_of([num_layers // 2], num_layers), wide_windows((0, num_layers - 1))


def open_gaps(choice: Choice, swept: Swept, config: ChoiceConfig) -> list[LayerSpan]:
    """Gaps beside the chosen layers that change answers when swapped together, as their layers and windows don't."""
    if choice.chosen_by not in ("single", "window"):
        return []  # a range comes from prefixes and suffixes, which tell of what lies on both sides
    return _standing(gaps_of(choice.layers, swept.num_layers), choice, swept, config)


def with_wide_windows(choice: Choice, swept: Swept, config: ChoiceConfig) -> Choice:
    """The choice, with those windows of four in its open gaps that do together what their parts do not."""
    while open_ := open_gaps(choice, swept, config):
        # Prefixes and suffixes of four are windows, too: without the others of their gap they are not tested.
        whole = [gap for gap in open_ if set(wide_windows(gap)) <= swept.column.keys()]
        named = _standing([window for gap in whole for window in wide_windows(gap)], choice, swept, config)
        if not named:
            break
        layers = sorted({*choice.layers, *(k for window in named for k in layers_in(window))})
        choice = replace(
            choice,
            layers=tuple(layers),
            distributed=len(layers) > config.distributed_above * swept.num_layers,
            chosen_by="window",
            named=tuple(sorted({*choice.named, *named})),
        )
    return choice


def _standing(blocks: Sequence[LayerSpan], choice: Choice, swept: Swept, config: ChoiceConfig) -> list[LayerSpan]:
    """Swept blocks that meet the conditions of a window: Holm over these blocks, half the peak, the margin."""
    there = [block for block in blocks if block in swept.column]
    above = holm(np.array([[swept.p[swept.column[block]] for block in there]]), config.alpha)[0]
    peak = max(swept.rate(block) for block in (*((k, k) for k in choice.layers), *choice.named))

    def stands(block: LayerSpan) -> bool:
        rate = swept.rate(block)
        beyond = rate - max(map(swept.rate, _narrow(block)))
        return rate >= max(config.floor, config.half * peak) and beyond >= config.margin

    return [block for block, is_above in zip(there, above, strict=True) if is_above and stands(block)]


def _narrow(block: LayerSpan) -> list[LayerSpan]:
    """The single layers and windows in a block."""
    first, last = block
    return [(a, a + width - 1) for width in (1, *WIDTHS) for a in range(first, last - width + 2)]
