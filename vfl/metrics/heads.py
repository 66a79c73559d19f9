"""Visual heads: how much each head looks at the image, how sharply, and both in one score.

    w[l, h] = sum_i a_i                              attention to the image tokens
    C[l, h] = 1 - H(a) / log N,  H(a) = -sum_i a_i log a_i    concentration inside the image, N image tokens
    score[l, h] = w[l, h] (1 + C[l, h] func(l)),     func(l) = k / (l + eps) + a exp(-b l)

Source: "Unveiling Visual Perception in Language Models" (Bi et al., CVPR 2025). Three choices change the numbers:

- a is renormalised to sum to one over the image first. Without it C mostly measures 1 - image mass: a head that spreads
  a mass of .05 evenly comes out near .95.
- base "matched" takes both logarithms to one base, so that even attention gives C = 0. base "paper" divides nats by
  log2 N, as the paper's formulas do: even attention gives 1 - ln 2 = .307.
- query "token" is the generated token itself, as in the paper; "predicts" the position before it (see var.py).

k, a, b and eps are not published; the defaults weight layer 0 twice and fade within a few layers.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

from vfl.engine.states import is_image_token
from vfl.errors import InputError
from vfl.metrics.result import Result, mean_curve, mean_scalar, result, table
from vfl.metrics.var import Query, read_query
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

BASES = ("matched", "paper")
TOP = 30


def head_weight(vlm: VLM, prompts: Iterable[Encoded], *, query: Query = "token") -> Result:
    """Attention w[l, h] to the image tokens, in 0 .. 1.

    Args:
        vlm: the model.
        prompts: N prompts.
        query: whose attention, see above.

    Returns:
        See `head_score`; values are attention masses.
    """
    return _by_head(vlm, prompts, query, lambda layer_idx, weights: weights.sum(-1), {})


def concentration(
    vlm: VLM, prompts: Iterable[Encoded], *, query: Query = "token", base: str = "matched", renormalise: bool = True
) -> Result:
    """Concentration C[l, h] of attention inside the image: 0 for even attention (base "matched"), 1 on a single token.

    Args:
        vlm: the model.
        prompts: N prompts.
        query: whose attention, see above.
        base: "matched" or "paper", see above.
        renormalise: divide by the image's mass first.

    Returns:
        See `head_score`; values are concentrations.

    Raises:
        InputError: for an unknown base.
    """
    _check_base(base)
    options = {"base": base, "renormalise": renormalise}

    def value(layer_idx: int, weights: torch.Tensor) -> torch.Tensor:
        return concentration_of(weights, base=base, renormalise=renormalise)

    return _by_head(vlm, prompts, query, value, options)


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
        query: whose attention, see above.
        base: of the concentration.
        renormalise: of the concentration.
        k: of func(l).
        a: of func(l).
        b: of func(l).
        eps: of func(l), above 0.

    Returns:
        Curve "heads" (L points: mean over heads, bootstrap over samples), scalar "heads" (mean over all heads),
        "heads": L x H table of means over samples, and "top": the highest heads with layer, head and value.

    Raises:
        InputError: for an unknown base, or eps <= 0.
    """
    _check_base(base)
    if eps <= 0:
        raise InputError(f"eps={eps}: func(l) divides by l + eps from layer 0 on; give a positive number.")

    def score(layer_idx: int, weights: torch.Tensor) -> torch.Tensor:
        func = k / (layer_idx + eps) + a * math.exp(-b * layer_idx)
        return weights.sum(-1) * (1 + func * concentration_of(weights, base=base, renormalise=renormalise))

    options = {"base": base, "renormalise": renormalise, "k": k, "a": a, "b": b, "eps": eps}
    return _by_head(vlm, prompts, query, score, options)


def concentration_of(weights: torch.Tensor, *, base: str = "matched", renormalise: bool = True) -> torch.Tensor:
    """C of attention weights (..., N) over N image tokens: 1 - H / log N; 0 log 0 is 0, and a lone token gives 1."""
    if renormalise:
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    entropy = -torch.special.xlogy(weights, weights).sum(-1)  # nats
    num_tokens = weights.shape[-1]
    if num_tokens == 1:
        return torch.ones_like(entropy)
    return 1 - entropy / (math.log(num_tokens) if base == "matched" else math.log2(num_tokens))


def head_values(
    vlm: VLM, encoded: Encoded, value: Callable[[int, torch.Tensor], torch.Tensor], *, query: Query = "token"
) -> torch.Tensor:
    """(L, H) values of one prompt, from `value(l, a)` on (H, N) attention to its N image tokens, layer by layer."""
    here = is_image_token(vlm, encoded)
    found: list[torch.Tensor] = []

    def read(layer_idx: int, weights: torch.Tensor) -> None:
        row = weights[0, :, 0, : len(here)]
        found.append(value(layer_idx, row[:, here.to(row.device)]).double().cpu())

    read_query(vlm, encoded, read, query=query)
    return torch.stack(found)


def _by_head(
    vlm: VLM,
    prompts: Iterable[Encoded],
    query: Query,
    value: Callable[[int, torch.Tensor], torch.Tensor],
    options: dict[str, Any],
) -> Result:
    samples = [head_values(vlm, encoded, value, query=query) for encoded in prompts]
    curves = {"heads": mean_curve([sample.mean(1).tolist() for sample in samples])}
    scalars = {"heads": mean_scalar([float(sample.mean()) for sample in samples])}
    means = torch.stack(samples).mean(0)
    ranked = means.flatten().argsort(descending=True, stable=True)[:TOP].tolist()
    places = [divmod(at, means.shape[1]) for at in ranked]
    top = [{"layer": layer, "head": head, "value": float(means[layer, head])} for layer, head in places]
    settled = {"query": query, **options, "vision": "image tokens"}
    return result(len(samples), scalars, curves, settled, heads=table(means), top=top)


def _check_base(base: str) -> None:
    if base not in BASES:
        raise InputError(f"base={base!r} is unknown; expected one of {', '.join(BASES)}.")
