"""What the first k layers do with the image: cut off from it (mask), or spared it altogether (late entry).

    mask(k)        layers 0 .. k-1: no attention from text to vision tokens, nor from vision to text tokens
    late_entry(k)  text runs alone through layers 0 .. k-1, then the projector's outputs enter at their places

Where late entry holds its accuracy and masking does not, the first layers only copy the image. Source: "Unmasking the
functionality of early layers in VLMs" (Hartman et al.); its "0-3" is k = 4. Text before the image is not affected.
Positions stay those of the whole prompt.
"""

from collections.abc import Callable, Sequence

from vfl.engine.derived_caches import blind_to_text
from vfl.engine.derived_caches import late_entry as late_cache
from vfl.engine.image_cache import ImageCache
from vfl.engine.plan import Plan
from vfl.errors import InputError
from vfl.metrics.accuracy import TOLERANCE, accuracy_along, eighths, points
from vfl.metrics.result import Result
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM
from vfl.probes.asking import Asked, Asker
from vfl.probes.pair import Pair, Which

WAYS = ("both", "image_to_text")


def mask(
    vlm: VLM,
    pairs: Sequence[Pair],
    *,
    ks: Sequence[int] | None = None,
    ways: str = "both",
    tolerance: float = TOLERANCE,
) -> Result:
    """Accuracy with attention between vision and text cut in layers 0 .. k-1, for each function.

    Args:
        vlm: the model.
        pairs: probe pairs of any functions; each is asked on both its images.
        ks: numbers of first layers, 0 (always added) to L; by default the paper's 0, 4, 8, 12, 16 of 32, in proportion.
            Each costs an image prefill a prompt.
        ways: "both", or "image_to_text": vision tokens go on reading the text before them.
        tolerance: how much accuracy may fall to count as tolerated.

    Returns:
        See `accuracy_along`; the curves' axis is k.

    Raises:
        InputError: without pairs, for a k outside of 0 .. L, unknown ways, or a model whose vision states see the text.
    """
    if ways not in WAYS:
        raise InputError(f"ways={ways!r} is unknown; expected one of {', '.join(WAYS)}.")
    if ways == "both":
        return _entering(vlm, pairs, ks, blind_to_text, tolerance, {"ways": ways})
    return _entering(vlm, pairs, ks, None, tolerance, {"ways": ways})


def late_entry(
    vlm: VLM, pairs: Sequence[Pair], *, ks: Sequence[int] | None = None, tolerance: float = TOLERANCE
) -> Result:
    """Accuracy with vision tokens that skip layers 0 .. k-1 and enter at layer k, for each function.

    On DeepStack models the features of the skipped layers are left out.

    Args:
        vlm: the model.
        pairs: probe pairs of any functions; each is asked on both its images.
        ks: numbers of skipped layers, as in `mask`.
        tolerance: how much accuracy may fall to count as tolerated.

    Returns:
        See `accuracy_along`; the curves' axis is k.

    Raises:
        InputError: without pairs, for a k outside of 0 .. L, or a model whose vision states see the text.
    """
    return _entering(vlm, pairs, ks, late_cache, tolerance, {})


def _entering(
    vlm: VLM,
    pairs: Sequence[Pair],
    ks: Sequence[int] | None,
    stream_of: Callable[[VLM, Encoded, int], ImageCache] | None,
    tolerance: float,
    options: dict[str, str],
) -> Result:
    """Vision hidden from the text below k; from k on it reads a derived image cache, or the prompt's own for None."""
    num_layers = vlm.num_layers
    entries = points(ks, eighths(num_layers), vlm, "ks")

    def plan_of(encoded: Encoded, k: int) -> Plan:
        hidden = Plan.hide(range(k))
        if stream_of is None or k in (0, num_layers):  # nothing is edited, or nothing is read
            return hidden
        return hidden | Plan.swap(range(k, num_layers), stream_of(vlm, encoded, k))

    def plans_of(asker: Asker, pair: Pair, which: Which) -> tuple[Asked, list[Plan]]:
        asked = asker.ask(pair, which)
        return asked, [plan_of(asked.encoded, k) for k in entries]

    settled = {**options, "positions": "those of the whole prompt"}
    return accuracy_along(vlm, pairs, entries, plans_of, axis="k", tolerance=tolerance, options=settled)
