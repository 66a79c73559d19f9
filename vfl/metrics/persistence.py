"""Logit-lens persistence: how long a vision token keeps the vocabulary entry that it starts with.

    t_i(l) = argmax of the logit lens of vision token i at h[l]
    P(l)   = mean_i 1[t_i(l) = t_i(first)],  first = h[0], the embeddings, or h[1], what layer 0 returns

High early values say that the first layers copy vision tokens. Source: "Unmasking the functionality of early layers in
VLMs" (Hartman et al.).
"""

from collections.abc import Hashable, Iterable

from vfl.errors import InputError
from vfl.metrics.logit_lens import lens_of
from vfl.metrics.prompts import noted
from vfl.metrics.result import Result, mean_curve, mean_scalar, result
from vfl.metrics.spec import EARLY, SHARE, Metric
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

FIRST = {"embedding": 0, "layer_0": 1}


def persistence(vlm: VLM, prompts: Iterable[Encoded], *, first: str = "embedding") -> Result:
    """Share of vision tokens whose likeliest vocabulary entry is still the first one.

    Args:
        vlm: the model.
        prompts: N prompts.
        first: the state that is compared with: "embedding" (h[0]) or "layer_0" (h[1]).

    Returns:
        Curve "vision" over states h[0] .. h[L] (shares of image tokens, averaged over samples, bootstrap over samples)
        and the scalar "vision", its mean over states.

    Raises:
        InputError: for an unknown `first`.
    """
    if first not in FIRST:
        raise InputError(f"first={first!r} is unknown; expected one of {', '.join(FIRST)}.")
    samples = []
    images: list[Hashable] = []
    for encoded in noted(prompts, images):
        tokens = lens_of(vlm, encoded, k=1)[1][:, :, 0]  # (L+1, V)
        samples.append((tokens == tokens[FIRST[first]]).double().mean(1).tolist())
    curves = {"vision": mean_curve(samples, axis="state", clusters=images)}
    scalars = {"vision": mean_scalar([sum(sample) / len(sample) for sample in samples], clusters=images)}
    return result(len(samples), scalars, curves, {"first": first, "vision": "image tokens"})


SPEC = Metric(
    function=persistence,
    needs="prompts",
    title="Logit-lens persistence",
    read="Share of vision tokens whose likeliest vocabulary entry is still the first one. High early values say that "
    "the first layers keep the image tokens as they are.",
    source=EARLY,
    equation="P(l) = meanᵢ 1[tᵢ(l) = tᵢ(first)], tᵢ(l) = argmax softmax(W_U norm(h[l]ᵢ))",
    unit=SHARE,
)
