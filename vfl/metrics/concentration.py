"""Concentration of heads: how sharply a head looks inside the image.

    C[l, h] = 1 - H(a) / log N,   H(a) = -sum_i a_i log a_i,   N image tokens

Source: "Unveiling Visual Perception in Language Models" (Bi et al., CVPR 2025). Two choices change the numbers, beside
the query (vfl/metrics/heads.py):

- a is renormalised to sum to one over the image first. Without it C mostly measures 1 - image mass: a head that spreads
  a mass of .05 evenly comes out near .95.
- base "matched" takes both logarithms to one base, so that even attention gives C = 0. base "paper" divides nats by
  log2 N, as the paper's formulas do: even attention gives 1 - ln 2 = .307.
"""

import math
from collections.abc import Hashable, Iterable

import torch

from vfl.errors import InputError
from vfl.metrics.heads import of_heads, values_of_all
from vfl.metrics.prompts import noted
from vfl.metrics.result import Result, table
from vfl.metrics.spec import HEADS, Metric
from vfl.metrics.var import Query
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

BASES = ("matched", "paper")


def concentration(
    vlm: VLM, prompts: Iterable[Encoded], *, query: Query = "token", base: str = "matched", renormalise: bool = True
) -> Result:
    """Concentration C[l, h] of attention inside the image: 0 for even attention (base "matched"), 1 on a single token.

    Args:
        vlm: the model.
        prompts: N prompts.
        query: whose attention, see vfl/metrics/heads.py.
        base: "matched" or "paper", see above.
        renormalise: divide by the image's mass first.

    Returns:
        See `by_head`; values are concentrations. "weights": L x H table of w[l, h], the attention to the image.

    Raises:
        InputError: for an unknown base.
    """
    check(vlm, base=base)
    options = {"base": base, "renormalise": renormalise}

    def both(layer_idx: int, weights: torch.Tensor) -> torch.Tensor:
        return torch.stack([concentration_of(weights, base=base, renormalise=renormalise), weights.sum(-1)], dim=-1)

    images: list[Hashable] = []
    samples = values_of_all(vlm, noted(prompts, images), both, query=query)  # (L, H, 2) each
    measured = of_heads([sample[..., 0] for sample in samples], images, query, options)
    measured["weights"] = table(torch.stack(samples).mean(0)[..., 1])
    return measured


def concentration_of(weights: torch.Tensor, *, base: str = "matched", renormalise: bool = True) -> torch.Tensor:
    """C of attention weights (..., N) over N image tokens: 1 - H / log N; 0 log 0 is 0, and a lone token gives 1."""
    if renormalise:
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    entropy = -torch.special.xlogy(weights, weights).sum(-1)  # nats
    num_tokens = weights.shape[-1]
    if num_tokens == 1:
        return torch.ones_like(entropy)
    return 1 - entropy / (math.log(num_tokens) if base == "matched" else math.log2(num_tokens))


def check(vlm: VLM, *, base: str = "matched") -> None:
    """Raises InputError for an unknown base."""
    check_base(base)


def check_base(base: str) -> None:
    """Raises InputError for an unknown base."""
    if base not in BASES:
        raise InputError(f"base={base!r} is unknown; expected one of {', '.join(BASES)}.")


SPEC = Metric(
    function=concentration,
    check=check,
    needs="prompts",
    title="Concentration of heads",
    read="How sharply a head looks within the image: 0 is evenly over all tokens, 1 is a single token. In the "
    "scatter each dot is a head: those to the right and high up look at the image a lot and sharply; a sharp head that "
    "hardly looks, at the left, matters little.",
    use="Take heads that are high in both directions as the ones to look at, and compare their places between models "
    "with vfl compare.",
    source=HEADS,
    equation="C[l, h] = 1 − H(a) / log N, a the head’s attention over N image tokens",
    unit="concentration",
    scatter=("weights", "heads"),
    table_units={"weights": "attention mass"},
)
