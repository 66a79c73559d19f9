"""Which layers are shown not to be read: tests of equivalence, since "no significant drop" may be too few pairs.

After the equivalence tests of circuit hypotheses (Shi et al., arXiv 2410.13032). One-sided: a layer is not read where
an upper confidence bound of what its swap changes lies below a margin. The bounds of all layers hold together.
"""

from collections.abc import Sequence

import numpy as np

from vfl.locate.choosing import has_control
from vfl.locate.curves import LayerSpan, Outcomes
from vfl.locate.gaps import gaps_of
from vfl.locate.layer_rule import WIDTHS, ChoiceConfig, layers_in
from vfl.proofs import Equivalence, State
from vfl.stats import Bools, Floats, difference_at_most


def equivalence(data: Outcomes, found: Sequence[int], significant: Sequence[int], config: ChoiceConfig) -> Equivalence:
    """The state of every layer.

    `read` are the layers that the rule chose, and those that are significant and not shown to change less than the
    margin. A layer that another can replace changes nothing alone, so what it adds to a window beside it is bounded,
    too, and what all of the run of layers do among which it stands, where these are not chosen and were swapped
    together: the largest of its bounds counts, which needs no correction, since each of them would have to fail.

    Args:
        found: layers that the rule chose.
        significant: layers that are above the control, or the floor, and were not chosen.
    """
    alpha = config.alpha / data.num_layers
    against_control = has_control(data, config)
    at_most: list[float | None] = []
    states: list[State] = []
    for layer in range(data.num_layers):
        bound = _at_most(data, layer, found, against_control, alpha)
        at_most.append(None if bound is None else round(max(bound, 0.0), 6))
        if layer in found:
            states.append("read")
        elif bound is not None and bound < config.equivalence:
            states.append("not read")
        else:
            states.append("read" if layer in significant else "undecided")
    return Equivalence(margin=config.equivalence, at_most=at_most, states=states)


def _at_most(data: Outcomes, layer: int, found: Sequence[int], against_control: bool, alpha: float) -> float | None:
    """The largest upper bound of what the layer changes, alone or with others; None where it was not swept."""
    if not data.swept[layer]:
        return None
    around = [gap for gap in gaps_of(found, data.num_layers) if layer in layers_in(gap) and gap in data.blocks]
    # Where a swap of more layers changes no less, a layer of a gap is called unread wrongly only if the gap's bound
    # fails, and then all of its layers at once: the gap has the share of alpha that its layers have together.
    bounds = [
        _alone(data, block, against_control, alpha * len(layers_in(block))) for block in ((layer, layer), *around)
    ]
    for wider, rest in _beside(layer, data.blocks):
        changed = data.changed[:, [data.blocks.index(block) for block in (wider, *rest)]]
        rows = np.asarray(~np.isnan(changed).any(axis=1))
        if rows.any():
            before = np.asarray((changed[:, 1:] > 0).any(axis=1))
            bounds.append(_bound(data, changed[:, 0] > 0, before, rows, alpha))
    return max(bounds)


def _alone(data: Outcomes, block: LayerSpan, against_control: bool, alpha: float) -> float:
    """The upper bound of what a block changes beyond the control, or at all where there is none."""
    column = data.blocks.index(block)
    rows = ~np.isnan(data.changed[:, column])
    disrupted = np.zeros_like(rows)
    if against_control:
        rows &= ~np.isnan(data.control[:, column])
        disrupted = data.control[:, column] > 0
    return _bound(data, data.changed[:, column] > 0, disrupted, rows, alpha)


def _bound(data: Outcomes, changed: Bools, before: Bools, rows: Bools, alpha: float) -> float:
    """The upper bound of how many more pairs changed, over some rows; all (P,)."""
    gains, losses = ((one & ~other)[rows, None].astype(float) for one, other in ((changed, before), (before, changed)))
    bound: Floats = difference_at_most(gains, losses, data.group_of[rows].tolist(), alpha)
    return float(bound[0])


def _beside(layer: int, blocks: Sequence[LayerSpan]) -> list[tuple[LayerSpan, list[LayerSpan]]]:
    """Swept windows that hold the layer, each with what is left of it on either side."""
    there, out = set(blocks), []
    for first, last in blocks:
        if first <= layer <= last and 1 < last - first + 1 <= max(WIDTHS):
            rest = [side for side in ((first, layer - 1), (layer + 1, last)) if side[0] <= side[1]]
            if there.issuperset(rest):
                out.append(((first, last), rest))
    return out
