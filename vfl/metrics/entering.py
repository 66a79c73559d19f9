"""Accuracy where the image enters at layer k: below it the text reads no vision token, from it on some edit of them.

What masking and late entry have in common.
"""

from collections.abc import Callable, Sequence

from vfl.engine.image_cache import ImageCache
from vfl.engine.plan import Plan
from vfl.metrics.accuracy import accuracy_along, eighths, points
from vfl.metrics.result import Result
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM
from vfl.probes.asking import Asked, Asker
from vfl.probes.pair import Pair, Which


def accuracy_by_entry(
    vlm: VLM,
    pairs: Sequence[Pair],
    ks: Sequence[int] | None,
    cache_of: Callable[[VLM, Encoded, int], ImageCache] | None,
    tolerance: float,
    options: dict[str, str],
) -> Result:
    """Vision hidden from the text below k; from k on the text reads a derived image cache.

    Args:
        vlm: the model.
        pairs: probe pairs.
        ks: entry layers; by default the paper's 0, 4, 8, 12, 16 of 32, in proportion.
        cache_of: the image cache that is read from layer k on; None for the prompt's own.
        tolerance: how much accuracy may fall to count as tolerated.
        options: what else changes a number.
    """
    num_layers = vlm.num_layers
    entries = points(ks, eighths(num_layers), vlm, "ks")

    def plan_of(encoded: Encoded, k: int) -> Plan:
        hidden = Plan.hide(range(k))
        if cache_of is None or k in (0, num_layers):  # nothing is edited, or nothing is read
            return hidden
        return hidden | Plan.swap(range(k, num_layers), cache_of(vlm, encoded, k))

    def plans_of(asker: Asker, pair: Pair, which: Which) -> tuple[Asked, list[Plan]]:
        asked = asker.ask(pair, which)
        return asked, [plan_of(asked.encoded, k) for k in entries]

    settled = {**options, "positions": "those of the whole prompt"}
    return accuracy_along(vlm, pairs, entries, plans_of, axis="k", tolerance=tolerance, options=settled)
