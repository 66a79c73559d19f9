"""Vision token dropping: accuracy with the image hidden from the text in the last k layers, k = 0 .. L.

Table 1 of "Vision Function Layer in Multimodal LLMs" (arXiv 2509.24791), on probe pairs and for each function. k = 0 is
the plain model; k = L is a model that never sees the image, with all positions kept.
"""

from collections.abc import Sequence

from vfl.engine.plan import Plan
from vfl.metrics.accuracy import TOLERANCE, accuracy_along, points
from vfl.metrics.result import Result
from vfl.metrics.spec import VFL, Metric
from vfl.models.vlm import VLM
from vfl.probes.asking import Asked
from vfl.probes.pair import Pair, Which


def drop(vlm: VLM, pairs: Sequence[Pair], *, ks: Sequence[int] | None = None, tolerance: float = TOLERANCE) -> Result:
    """Accuracy against the number k of last layers in which the text sees no vision token, for each function.

    Args:
        vlm: the model.
        pairs: probe pairs of any functions; each is asked on both its images.
        ks: numbers of last layers, 0 (always added) to L; all of them by default.
        tolerance: how much accuracy may fall to count as tolerated.

    Returns:
        See `accuracy_along`; the curves' axis is k.

    Raises:
        InputError: without pairs, or for a k outside of 0 .. L.
    """
    num_layers = vlm.num_layers
    hidden = check(vlm, ks=ks)

    def plans_of(images: Sequence[tuple[Pair, Which]], asked: Sequence[Asked]) -> list[tuple[Asked, list[Plan]]]:
        return [(one, [Plan.hide(range(num_layers - k, num_layers)) for k in hidden]) for one in asked]

    return accuracy_along(vlm, pairs, hidden, plans_of, axis="k", tolerance=tolerance, options={})


def check(vlm: VLM, *, ks: Sequence[int] | None = None) -> list[int]:
    """The numbers of last layers; InputError for one outside of 0 .. L."""
    return points(ks, range(vlm.num_layers + 1), vlm, "ks")


SPEC = Metric(
    function=drop,
    check=check,
    needs="pairs",
    title="Vision token dropping",
    read="Accuracy with the image hidden from the text in the last k layers. Each function holds until its own layers "
    "are hidden. At k = L the model never sees the image: the no-image level.",
    use="Read off the largest k that costs nothing: it is how many last layers may go without the image, and vfl skip "
    "does that with --exit.",
    source=f"{VFL}, table 1",
    equation="accuracy(k) with no vision token visible in layers L−k … L−1",
)
