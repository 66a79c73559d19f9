"""Late entry: the first k layers spared the image altogether.

    late_entry(k)   text runs alone through layers 0 .. k-1, then the projector's outputs enter at their places
    late_text(k)    the control: the image runs through all layers, and the text after it enters at layer k

Source: "Unmasking the functionality of early layers in VLMs" (Hartman et al.); its "0-3" is k = 4. Positions stay those
of the whole prompt.
"""

from collections.abc import Sequence
from functools import partial

from vfl.engine.derived_caches import late_entries
from vfl.engine.late_text import late_text
from vfl.engine.plan import Plan
from vfl.metrics.accuracy import TOLERANCE, accuracy_along
from vfl.metrics.entering import accuracy_by_entry, entry_points
from vfl.metrics.result import Result
from vfl.metrics.spec import EARLY, SHARE, Metric
from vfl.models.vlm import VLM
from vfl.probes.asking import Asked
from vfl.probes.pair import Pair, Which


def late_entry(
    vlm: VLM,
    pairs: Sequence[Pair],
    *,
    ks: Sequence[int] | None = None,
    tolerance: float = TOLERANCE,
    text: bool = False,
) -> Result:
    """Accuracy with vision tokens that skip layers 0 .. k-1 and enter at layer k, for each function.

    On DeepStack models the features of the skipped layers are left out.

    Args:
        vlm: the model.
        pairs: probe pairs of any functions; each is asked on both its images.
        ks: numbers of skipped layers, as in `mask`.
        tolerance: how much accuracy may fall to count as tolerated.
        text: also let the text after the image, the answer's too, skip the first k layers instead: the control, which
            costs a sweep more for each k.

    Returns:
        See `accuracy_along`; the curves' axis is k. With `text`, curves "f/accuracy_text" and "f/logprob_text" and
        scalar "f/tolerated_text" of the control.

    Raises:
        InputError: without pairs, for a k outside of 0 .. L, or a model whose vision states see the text.
    """
    entered = accuracy_by_entry(vlm, pairs, ks, late_entries, tolerance, {})
    entered["options"]["text"] = "after the image" if text else "not skipped"
    if not text:
        return entered
    entries = entered["options"]["ks"]

    def plans_of(images: Sequence[tuple[Pair, Which]], asked: Sequence[Asked]) -> list[tuple[Asked, list[Plan]]]:
        return [(one, [Plan.own()] * len(entries)) for one in asked]

    control = accuracy_along(
        vlm, pairs, entries, plans_of, axis="k", tolerance=tolerance, options={}, within=partial(late_text, vlm)
    )
    entered["curves"] |= {f"{name}_text": curve for name, curve in control["curves"].items()}
    entered["scalars"] |= {
        f"{name}_text": scalar for name, scalar in control["scalars"].items() if name.endswith("/tolerated")
    }
    return entered


SPEC = Metric(
    function=late_entry,
    check=entry_points,
    needs="pairs",
    title="Late entry",
    read="The vision tokens skip layers 0 to k−1 and enter at layer k as the projector made them. Up to the k where "
    "accuracy leaves its first value, these layers add nothing to the image that this question needs. “Accuracy text” "
    "is the control, with the option text: the same layers skipped by the text after the image instead. Where it falls "
    "at once, and the other does not, the layers work on text.",
    use="Take the largest k that is tolerated on every function you care about as the entry of vfl skip, and try it "
    "there.",
    source=EARLY,
    equation="accuracy(k) with vision tokens only in layers k … L−1, from the projector’s outputs",
    units={"accuracy_text": SHARE, "logprob_text": "nats per token", "tolerated_text": ""},
)
