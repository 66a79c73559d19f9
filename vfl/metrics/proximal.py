"""Proximal redundancy by modality: the share of tokens that a layer hardly moves.

    phat_m(l) = mean_i 1[d(h_i[l], h_i[l+1]) <= tau],   redundant: phat_m(l) >= p

d and the layers are those of cosine.py. Source: "Skip-It" (Hartman et al.).
"""

from collections.abc import Hashable, Iterable

from vfl.metrics.cosine import TAU, adjacent_distances, by_modality
from vfl.metrics.prompts import noted
from vfl.metrics.result import Result
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
        share: a layer is redundant for a modality where phat >= share.

    Returns:
        Curves "vision" and "text" (L points each, shares of tokens averaged over samples, bootstrap over samples),
        scalars with their means over layers, and "redundant": the redundant layers of each modality.
    """
    images: list[Hashable] = []
    samples = [adjacent_distances(vlm, encoded, tau=tau)[1] for encoded in noted(prompts, images)]
    return by_modality(samples, images, "redundant", lambda value: value >= share, {"tau": tau, "share": share})


SPEC = Metric(
    function=proximal,
    needs="prompts",
    title="Proximal redundancy",
    read="Share of tokens that a layer moves by no more than tau. Vision near 100 % in the first layers allows late "
    "entry, together with little attention to the image there (see the visual attention ratio).",
    source=SKIP,
    equation="p̂ₘ(l) = meanᵢ 1[d(hᵢ[l], hᵢ[l+1]) ≤ τ]",
    unit=SHARE,
)
