"""Masking: the first k layers cut off from the image.

    mask(k)   layers 0 .. k-1: no attention to a vision token, nor from one, but a vision token's to itself

The paper blocks attention "to and from vision tokens" and leaves open whether vision tokens go on seeing one another.
Here they don't, unless `ways` says so: what vision tokens make of one another in these layers is then cut too. Where
late entry (late_entry.py) holds its accuracy and masking does not, the first layers only copy the image. Source:
"Unmasking the functionality of early layers in VLMs" (Hartman et al.); its "0-3" is k = 4. Text before the image is not
affected. Positions stay those of the whole prompt.
"""

from collections.abc import Sequence

from vfl.engine.derived_caches import all_alone, all_blind_to_text
from vfl.errors import InputError
from vfl.metrics.accuracy import TOLERANCE
from vfl.metrics.entering import accuracy_by_entry, entry_points
from vfl.metrics.result import Result
from vfl.metrics.spec import EARLY, Metric
from vfl.models.vlm import VLM
from vfl.probes.pair import Pair

# What vision tokens see below k -> the image caches of such ones; text sees none of them there in any of the ways.
WAYS = {"all": all_alone, "cross": all_blind_to_text, "image_to_text": None}


def mask(
    vlm: VLM,
    pairs: Sequence[Pair],
    *,
    ks: Sequence[int] | None = None,
    ways: str = "all",
    tolerance: float = TOLERANCE,
) -> Result:
    """Accuracy with attention to and from vision tokens cut in layers 0 .. k-1, for each function.

    Args:
        vlm: the model.
        pairs: probe pairs of any functions; each is asked on both its images.
        ks: numbers of first layers, 0 (always added) to L; by default the paper's 0, 4, 8, 12, 16 of 32, in proportion.
            Each costs an image prefill a prompt.
        ways: "all": text sees no vision token, and a vision token only itself. "cross": vision tokens go on seeing one
            another. "image_to_text": they go on seeing the text before them, too. The paper leaves it open.
        tolerance: how much accuracy may fall to count as tolerated.

    Returns:
        See `accuracy_along`; the curves' axis is k.

    Raises:
        InputError: without pairs, for a k outside of 0 .. L, unknown ways, or a model whose vision states see the text.
    """
    check(vlm, ks=ks, ways=ways)
    return accuracy_by_entry(vlm, pairs, ks, WAYS[ways], tolerance, {"ways": ways})


def check(vlm: VLM, *, ks: Sequence[int] | None = None, ways: str = "all") -> None:
    """Raises InputError for a k outside of 0 .. L, or unknown ways."""
    entry_points(vlm, ks)
    check_ways(ways)


def check_ways(ways: str) -> None:
    """Raises InputError for ways of masking that there are not."""
    if ways not in WAYS:
        raise InputError(f"ways={ways!r} is unknown; expected one of {', '.join(WAYS)}.")


SPEC = Metric(
    function=mask,
    check=check,
    needs="pairs",
    title="Masking the first layers",
    read="In layers 0 to k−1 the text does not see the image, and an image token sees nothing but itself (ways: all; "
    "the paper leaves open whether image tokens see one another, which ways: cross lets them). Read it beside late "
    "entry: accuracy that falls here but holds there says that the first layers only carry the image to where it "
    "is used. The dashed level is the model without an image, the dotted one is guessing; below them nothing is "
    "left to lose.",
    use="Compare the k where accuracy leaves the plain model’s here and in late entry: layers that may be skipped but "
    "not masked need no saving of attention, only of states.",
    source=EARLY,
    equation="accuracy(k) with no attention to or from vision tokens in layers 0 … k−1",
)
