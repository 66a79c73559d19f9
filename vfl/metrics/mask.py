"""Masking: the first k layers cut off from the image.

    mask(k)   layers 0 .. k-1: no attention from text to vision tokens, nor from vision to text tokens

Where late entry (late_entry.py) holds its accuracy and masking does not, the first layers only copy the image. Source:
"Unmasking the functionality of early layers in VLMs" (Hartman et al.); its "0-3" is k = 4. Text before the image is not
affected. Positions stay those of the whole prompt.
"""

from collections.abc import Sequence

from vfl.engine.derived_caches import blind_to_text
from vfl.errors import InputError
from vfl.metrics.accuracy import TOLERANCE
from vfl.metrics.entering import accuracy_by_entry
from vfl.metrics.result import Result
from vfl.metrics.spec import EARLY, Metric
from vfl.models.vlm import VLM
from vfl.probes.pair import Pair

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
    cache_of = blind_to_text if ways == "both" else None
    return accuracy_by_entry(vlm, pairs, ks, cache_of, tolerance, {"ways": ways})


SPEC = Metric(
    function=mask,
    needs="pairs",
    title="Masking the first layers",
    read="In layers 0 to k−1 the text does not see the image, nor the image the text before it. Read it beside late "
    "entry: accuracy that falls here but holds there says that the first layers only carry the image to where it "
    "is used. The dashed level is the model without an image, the dotted one is guessing; below them nothing is "
    "left to lose.",
    source=EARLY,
    equation="accuracy(k) with no attention between vision and text in layers 0 … k−1",
)
