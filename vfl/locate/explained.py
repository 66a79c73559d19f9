"""How many of the answers the named layers explain, and what to say where they explain few."""

from collections.abc import Sequence

import numpy as np

from vfl.io.layers import layer_list
from vfl.locate.curves import LayerSpan, Outcomes
from vfl.locate.significance import Levels

HALF = 0.5  # named layers that change fewer of the kept pairs leave most of the function elsewhere


def explained(data: Outcomes, spans: Sequence[LayerSpan], level: Levels) -> float:
    """Share of kept pairs whose answer changes under the swap of at least one of the spans, beyond the background.

    The background is the same share under the control swaps, or the floor where these don't decide. In a kept pair the
    two images have different answers, so a swap of every layer changes all of them: 1 is everything.
    """
    columns = [data.blocks.index(span) for span in spans if span in data.blocks]
    # A screen may have left out a layer of a named window; what that does alone is not known yet.
    columns = [column for column in columns if not np.isnan(data.changed[:, column]).all()]
    rate = float((np.nan_to_num(data.changed[:, columns]) > 0).any(axis=1).mean())
    if level.has_control[columns].all():
        control = data.control[:, columns]
        rows = ~np.isnan(control).all(axis=1)
        background = float((np.nan_to_num(control[rows]) > 0).any(axis=1).mean())
    else:
        background = float(level.background[0, columns].max())
    return max(rate - background, 0.0)


def unexplained(data: Outcomes, layers: Sequence[int], share: float, level: Levels) -> str:
    """A warning where the named layers leave most answers unexplained, with where the rest lies; else empty."""
    if share >= HALF:
        return ""
    text = (
        f"The named layers ({layer_list(layers)}) explain only {share:.0%} of the answers: the other pairs are served "
        "by other layers, or by several that can each do it alone."
    )
    last = data.num_layers - 1
    ends = [(0, k) for k in range(last + 1)], [(k, last) for k in range(last + 1)]
    if not all(span in data.blocks for spans in ends for span in spans):
        return text + " Sweep prefixes and suffixes to see where (--mode suffix)."
    rates = [[float(level.excess[0, data.blocks.index(span)]) for span in spans] for spans in ends]
    whole = rates[0][-1]
    if whole <= share:
        return ""
    prefix = next(k for k, rate in enumerate(rates[0]) if rate >= HALF * whole)
    suffix = next(k for k, rate in reversed(list(enumerate(rates[1]))) if rate >= HALF * whole)
    return text + (
        f" With all layers swapped {whole:.0%} change; half of that is reached by layers 0-{prefix} from below and "
        f"{suffix}-{last} from above."
    )
