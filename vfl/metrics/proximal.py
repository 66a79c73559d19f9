"""Proximal redundancy by modality: the share of tokens that a layer hardly moves.

    phat_m(l) = mean_i 1[d(h_i[l], h_i[l+1]) <= tau],   redundant: phat_m(l) >= p

d and the layers are those of cosine.py. Source: "Skip-It" (Hartman et al.).
"""

from collections.abc import Hashable, Iterable

from vfl.metrics.bounds import distance_bound
from vfl.metrics.cosine import TAU, adjacent_distances, by_modality
from vfl.metrics.prompts import noted
from vfl.metrics.result import Result, mean_curve
from vfl.metrics.spec import SHARE, SKIP, Metric
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

REDUNDANT = 0.95  # the papers name no p


def proximal(vlm: VLM, prompts: Iterable[Encoded], *, tau: float = TAU, share: float = REDUNDANT) -> Result:
    """Share phat_m(l) of tokens that a layer moves by no more than tau in cosine distance, for vision and text tokens.

    Args:
        vlm: the model.
        prompts: N prompts.
        tau: largest distance of a token that counts as unmoved.
        share: a layer is redundant for a modality where phat >= share, with its whole interval.

    Returns:
        Curves "vision" and "text" (L points each, shares of tokens averaged over samples, bootstrap over samples),
        scalars with their means over layers, "redundant": the redundant layers of each modality, and "undecided":
        those whose interval holds `share`. Curves "vision/distance" and "text/distance" (the mean distance) beside
        "vision/bound" and "text/bound", what Proposition 1 makes of the share: E[d] <= tau + (2 - tau) (1 - phat).
    """
    images: list[Hashable] = []
    samples = [adjacent_distances(vlm, encoded, tau=tau) for encoded in noted(prompts, images)]
    within = [sample[1] for sample in samples]
    unmoved = by_modality(within, images, "redundant", lambda value: value >= share, {"tau": tau, "share": share})
    for modality, name in enumerate(("vision", "text")):
        means = [sample[0, modality].tolist() for sample in samples]
        bounds = [distance_bound(sample[modality].numpy(), tau).tolist() for sample in within]
        unmoved["curves"][f"{name}/distance"] = mean_curve(means, clusters=images)
        unmoved["curves"][f"{name}/bound"] = mean_curve(bounds, clusters=images)
    return unmoved


SPEC = Metric(
    function=proximal,
    needs="prompts",
    title="Proximal redundancy",
    read="Share of tokens that a layer moves by no more than tau. Vision near 100 % in the first layers allows late "
    "entry, together with little attention to the image there (see the visual attention ratio). A layer is listed "
    "where its whole interval reaches the share asked for, and undecided where one end does. The bound is the most "
    "that the mean distance can be with this share (Proposition 1).",
    use="Use it as the cheap first look before late_entry: it needs no answers, so it runs on unlabelled images.",
    source=SKIP,
    equation="p̂ₘ(l) = meanᵢ 1[d(hᵢ[l], hᵢ[l+1]) ≤ τ]",
    unit=SHARE,
    units={"distance": "cosine distance", "bound": "cosine distance"},
)
