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
from vfl.probes.asking import Asked
from vfl.probes.pair import Pair, Which


def entry_points(vlm: VLM, ks: Sequence[int] | None = None) -> list[int]:
    """Entry layers, by default the paper's in proportion; InputError for one outside of 0 .. L."""
    return points(ks, eighths(vlm.num_layers), vlm, "ks")


def accuracy_by_entry(
    vlm: VLM,
    pairs: Sequence[Pair],
    ks: Sequence[int] | None,
    caches_of: Callable[[VLM, Sequence[Encoded], Sequence[int]], list[list[ImageCache]]] | None,
    tolerance: float,
    options: dict[str, str],
) -> Result:
    """Vision hidden from the text below k; from k on the text reads a derived image cache.

    Args:
        vlm: the model.
        pairs: probe pairs.
        ks: entry layers; by default the paper's 0, 4, 8, 12, 16 of 32, in proportion.
        caches_of: of prompts, the image caches that are read from each layer k on; None for the prompts' own.
        tolerance: how much accuracy may fall to count as tolerated.
        options: what else changes a number.
    """
    num_layers = vlm.num_layers
    entries = entry_points(vlm, ks)

    def plans_of(images: Sequence[tuple[Pair, Which]], asked: Sequence[Asked]) -> list[tuple[Asked, list[Plan]]]:
        # elsewhere nothing is edited, or nothing is read
        edited = [k for k in entries if k not in (0, num_layers)] if caches_of is not None else []
        made: list[dict[int, ImageCache]] = [{} for _ in asked]
        if caches_of is not None and edited:
            derived = caches_of(vlm, [one.encoded for one in asked], edited)
            made = [dict(zip(edited, caches, strict=True)) for caches in derived]

        def plan_of(k: int, caches: dict[int, ImageCache]) -> Plan:
            hidden = Plan.hide(range(k))
            return hidden | Plan.swap(range(k, num_layers), caches[k]) if k in caches else hidden

        return [(one, [plan_of(k, caches) for k in entries]) for one, caches in zip(asked, made, strict=True)]

    settled = {**options, "positions": "those of the whole prompt"}
    return accuracy_along(vlm, pairs, entries, plans_of, axis="k", tolerance=tolerance, options=settled)
