"""Visual heads: how much each head looks at the image and how sharply, in one score.

    score[l, h] = w[l, h] (1 + C[l, h] func(l)),   func(l) = k / (l + eps) + a exp(-b l)

w is the attention to the image tokens, C the concentration (concentration.py). Source: "Unveiling Visual Perception in
Language Models" (Bi et al., CVPR 2025). k, a, b and eps are not published; the defaults weight layer 0 twice and fade
within a few layers.
"""

import math
from collections.abc import Iterable

import torch

from vfl.errors import InputError
from vfl.metrics.concentration import check_base, concentration_of
from vfl.metrics.heads import by_head
from vfl.metrics.result import Result
from vfl.metrics.spec import HEADS, Metric
from vfl.metrics.var import Query
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM


def head_score(
    vlm: VLM,
    prompts: Iterable[Encoded],
    *,
    query: Query = "token",
    base: str = "matched",
    renormalise: bool = True,
    k: float = 1.0,
    a: float = 1.0,
    b: float = 1.0,
    eps: float = 1.0,
) -> Result:
    """Score of every head: its attention to the image, raised by concentration, most of all in early layers.

    Args:
        vlm: the model.
        prompts: N prompts.
        query: whose attention, see vfl/metrics/heads.py.
        base: of the concentration.
        renormalise: of the concentration.
        k: of func(l).
        a: of func(l).
        b: of func(l).
        eps: of func(l), above 0.

    Returns:
        See `by_head`.

    Raises:
        InputError: for an unknown base, or eps <= 0.
    """
    check(vlm, base=base, eps=eps)

    def score(layer_idx: int, weights: torch.Tensor) -> torch.Tensor:
        func = k / (layer_idx + eps) + a * math.exp(-b * layer_idx)
        return weights.sum(-1) * (1 + func * concentration_of(weights, base=base, renormalise=renormalise))

    options = {"base": base, "renormalise": renormalise, "k": k, "a": a, "b": b, "eps": eps}
    return by_head(vlm, prompts, query, score, options)


def check(vlm: VLM, *, base: str = "matched", eps: float = 1.0) -> None:
    """Raises InputError for an unknown base, or eps <= 0."""
    check_base(base)
    if eps <= 0:
        raise InputError(f"eps={eps}: func(l) divides by l + eps from layer 0 on; give a positive number.")


SPEC = Metric(
    function=head_score,
    check=check,
    needs="prompts",
    title="Visual head score",
    read="Image attention raised by concentration, most in early layers. The highest are candidates for masking; the "
    "constants of the weighting are not published, so compare ranks rather than values.",
    use="Give no meaning to the values; take the order, and test it with head_masking.",
    source=HEADS,
    equation="score[l, h] = w[l, h] · (1 + C[l, h] · func(l)), func(l) = k / (l + ε) + a · exp(−b l)",
    unit="score",
)
