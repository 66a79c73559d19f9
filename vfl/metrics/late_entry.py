"""Late entry: the first k layers spared the image altogether.

    late_entry(k)   text runs alone through layers 0 .. k-1, then the projector's outputs enter at their places

Source: "Unmasking the functionality of early layers in VLMs" (Hartman et al.); its "0-3" is k = 4. Positions stay those
of the whole prompt.
"""

from collections.abc import Sequence

from vfl.engine import derived_caches
from vfl.metrics.accuracy import TOLERANCE
from vfl.metrics.entering import accuracy_by_entry
from vfl.metrics.result import Result
from vfl.metrics.spec import EARLY, Metric
from vfl.models.vlm import VLM
from vfl.probes.pair import Pair


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
    return accuracy_by_entry(vlm, pairs, ks, derived_caches.late_entry, tolerance, {})


SPEC = Metric(
    function=late_entry,
    needs="pairs",
    title="Late entry",
    read="The vision tokens skip layers 0 to k−1 and enter at layer k as the projector made them. Up to the k where "
    "accuracy leaves its first value, these layers add nothing to the image that this question needs.",
    source=EARLY,
    equation="accuracy(k) with vision tokens only in layers k … L−1, from the projector’s outputs",
)
