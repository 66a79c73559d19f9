"""Logit-lens persistence: how long a token keeps the vocabulary entry that it starts with, vision beside text.

    t_i(l) = argmax of the logit lens of token i at h[l]
    P(l)   = mean_i 1[t_i(l) = t_i(first)],  first = h[0], the embeddings, or h[1], what layer 0 returns

High early values of vision where text falls say that the first layers copy vision tokens. Source: "Unmasking the
functionality of early layers in VLMs" (Hartman et al.).
"""

from collections.abc import Hashable, Iterable

from vfl.engine.states import is_image_token, is_vision
from vfl.errors import InputError
from vfl.metrics.logit_lens import lens_of
from vfl.metrics.prompts import noted
from vfl.metrics.result import Result, mean_curve, mean_scalar, result
from vfl.metrics.spec import EARLY, SHARE, Metric
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

FIRST = {"embedding": 0, "layer_0": 1}


def persistence(vlm: VLM, prompts: Iterable[Encoded], *, first: str = "embedding") -> Result:
    """Share of tokens whose likeliest vocabulary entry is still the first one, of vision and of text.

    Args:
        vlm: the model.
        prompts: N prompts.
        first: the state that is compared with: "embedding" (h[0]) or "layer_0" (h[1]).

    Returns:
        Curves "vision" and "text" over states h[0] .. h[L] (shares of image tokens, and of tokens outside of the image,
        averaged over samples, bootstrap over images) and scalars of these names, their means over states.

    Raises:
        InputError: for an unknown `first`.
    """
    check(vlm, first=first)
    samples = []
    images: list[Hashable] = []
    for encoded in noted(prompts, images):
        vision, text = is_image_token(vlm, encoded), ~is_vision(encoded)
        here = vision | text
        tokens = lens_of(vlm, encoded, k=1, here=here)[1][:, :, 0]  # (L+1, both)
        kept = (tokens == tokens[FIRST[first]]).double()
        samples.append([kept[:, own[here].cpu()].mean(1).tolist() for own in (vision, text)])
    curves, scalars = {}, {}
    for at, name in enumerate(("vision", "text")):
        curves[name] = mean_curve([sample[at] for sample in samples], axis="state", clusters=images)
        scalars[name] = mean_scalar([sum(sample[at]) / len(sample[at]) for sample in samples], clusters=images)
    return result(len(samples), scalars, curves, {"first": first, "vision": "image tokens"})


def check(vlm: VLM, *, first: str = "embedding") -> None:
    """Raises InputError for an unknown `first`."""
    if first not in FIRST:
        raise InputError(f"first={first!r} is unknown; expected one of {', '.join(FIRST)}.")


SPEC = Metric(
    function=persistence,
    check=check,
    needs="prompts",
    title="Logit-lens persistence",
    read="Share of tokens whose likeliest vocabulary entry is still the first one. High early values of vision, where "
    "text has left its own, say that the first layers keep the image tokens as they are.",
    use="Where vision keeps its first entry and text does not, look at late_entry up to that state; where vision "
    "loses it at once, leave the first layers alone.",
    source=EARLY,
    equation="P(l) = meanᵢ 1[tᵢ(l) = tᵢ(first)], tᵢ(l) = argmax softmax(W_U norm(h[l]ᵢ))",
    unit=SHARE,
)
