"""Informational redundancy: what a layer can add to its vision tokens, H(X_{l+1} | X_l) <= eps, by bounds.

X is a vision token's state before layer l, X' after it. From the distances alone, with t a radius, P_t the share of
tokens that move further than t, and N(x) the number of the image's tokens whose new state lies within t of x:

    H(X'|X) <= h2(P_t) + P_t log((V - N_min) / N_max) + log N_max     (Fano)
    I(X;X') >= (1 - P_t) log(1 / p_max) + P_t log(1 / (1 - p_min)) - h2(P_t),   p = N / V
    I(X;X') >= KL(Bern(1 - P_t) || Bern(q_t)),   q_t the share of shuffled pairs within t (tighter)
    H(X'|X) <= log V - I(X;X') <= log V - KL
    |MMSE(Y|X) - MMSE(Y|X')| <= 2 C^2 H(X'|X)                         (Theorem 5, I(Y;X'|X) <= H(X'|X))

The support are the image's own V tokens, all equally likely. They are V different states before a layer and after it,
one to one: counted as such they lose nothing whatever the layer does. So only what the distances say counts, the least
of the bounds, and it can show that a layer is redundant, never that it is not. Source: "Skip-It" (Hartman et al.).
"""

import math
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import torch

from vfl.engine.states import between_layers, forward, is_image_token
from vfl.errors import InputError
from vfl.metrics.bounds import (
    entropy_tightest,
    entropy_upper,
    information_gap_bound,
    information_kl,
    information_lower,
)
from vfl.metrics.prompts import noted
from vfl.metrics.result import Result, mean_curve, mean_scalar, result
from vfl.metrics.spec import SHARE, SKIP, Metric
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

RADIUS = 0.05  # the proximal tau
EPS = 0.05  # nats; the paper names none
COUNTS = ("exceed", "fewest", "most", "shuffled")


def informational(
    vlm: VLM, prompts: Iterable[Encoded], *, radius: float = RADIUS, eps: float = EPS, norm: float = 1.0
) -> Result:
    """Bounds on the information that each layer adds to vision tokens, in nats.

    Args:
        vlm: the model.
        prompts: N prompts.
        radius: t, a cosine distance.
        eps: a layer is redundant where the upper bound of H(X'|X) is at most this, with its whole interval.
        norm: C, the largest norm of a target Y (1 for one-hot answers).

    Returns:
        Curves over layers (L points, mean over samples, bootstrap): "entropy_upper", the least of "fano", log V and log
        V minus "information_kl", beside "support" (log V); "information_lower" and "information_kl" (its tighter form),
        not below 0; "gap_bound" (of the MMSE, by entropy_upper); and what they are made of: "exceed" (P_t) and
        "shuffled" (q_t). Scalars of the first six with their means over layers. "redundant": layers with entropy_upper
        <= eps; "undecided": the others. "undecided_share": how near to log V the bound of the undecided layers is, on
        average; near 1 it says nothing.

    Raises:
        InputError: for a radius outside of 0 .. 2.
    """
    check(vlm, radius=radius)
    bounds: dict[str, list[list[float]]] = {}
    samples = 0
    images: list[Hashable] = []
    for encoded in noted(prompts, images):
        samples += 1
        counts = ball_counts(vlm, encoded, radius)
        exceed, fewest, most, shuffled = (row.numpy() for row in counts)
        support = float(is_image_token(vlm, encoded).sum())
        fano = entropy_upper(exceed, support, fewest, most)
        information = np.maximum(information_kl(exceed, shuffled), 0)  # rounding
        upper = entropy_tightest(fano, support, information)
        of_layers = {
            "entropy_upper": upper,
            "fano": fano,
            "support": np.full(vlm.num_layers, math.log(support)),
            "information_lower": np.maximum(information_lower(exceed, fewest / support, most / support), 0),
            "information_kl": information,
            "gap_bound": information_gap_bound(upper, norm),
            "exceed": exceed,
            "shuffled": shuffled,
        }
        for name, values in of_layers.items():
            bounds.setdefault(name, []).append(values.tolist())
    if not bounds:
        raise InputError("The metric informational was asked for without a single prompt. Give at least one.")
    curves = {name: mean_curve(values, clusters=images) for name, values in bounds.items()}
    scalars = {
        name: mean_scalar([sum(value) / len(value) for value in values], clusters=images)
        for name, values in bounds.items()
        if name not in ("exceed", "shuffled")
    }
    ours = curves["entropy_upper"]
    highest = [value if high is None else high for value, high in zip(ours["value"], ours["high"], strict=True)]
    redundant = [layer for layer, high in enumerate(highest) if high <= eps]
    undecided = [layer for layer in range(vlm.num_layers) if layer not in redundant]
    options = {"radius": radius, "eps": eps, "norm": norm, "unit": "nats", "vision": "image tokens"}
    more: dict[str, Any] = {"redundant": redundant, "undecided": undecided}
    if undecided and curves["support"]["value"][0] > 0:
        shares = [ours["value"][layer] / curves["support"]["value"][layer] for layer in undecided]
        more["undecided_share"] = round(sum(shares) / len(shares), 3)
    return result(samples, scalars, curves, options, **more)


def ball_counts(vlm: VLM, encoded: Encoded, radius: float) -> torch.Tensor:
    """(4, L) of one prompt: P_t, N_min, N_max and q_t at each layer; V x V distances are held, one layer at a time."""
    here = is_image_token(vlm, encoded)
    counts = torch.zeros(len(COUNTS), vlm.num_layers, dtype=torch.float64)

    def visit(layer_idx: int, before: torch.Tensor, after: torch.Tensor) -> None:
        old, new = (_unit(state[0, here.to(state.device)]) for state in (before, after))
        within = 1 - old @ new.to(old.device).T <= radius  # (V, V)
        held = within.sum(1)
        moved = 1 - within.diagonal().double().mean()
        counts[:, layer_idx] = torch.stack([moved, held.min(), held.max(), within.double().mean()]).double().cpu()

    with between_layers(vlm.layers, visit):
        forward(vlm, encoded)
    return counts


def _unit(states: torch.Tensor) -> torch.Tensor:
    wide = states.to(torch.promote_types(states.dtype, torch.float32))
    return torch.nn.functional.normalize(wide, dim=-1)


def check(vlm: VLM, *, radius: float = RADIUS) -> None:
    """Raises InputError for a radius outside of 0 .. 2."""
    if not 0 < radius < 2:
        raise InputError(f"radius={radius}: cosine distances lie in 0 to 2; give one between.")


SPEC = Metric(
    function=informational,
    check=check,
    needs="prompts",
    title="Informational redundancy",
    read="Bounds on what a layer adds that the layer before did not hold. Compare the upper bound, the least of three, "
    "with the support, log|X|, the most it could ever be: near that it says nothing. A bound can show that a layer is "
    "redundant, never that it is not: layers that are not listed are undecided.",
    use="Skip none of the layers because of this alone; use it to say why a layer that late_entry tolerates may go.",
    source=SKIP,
    equation="H(X_l+1 | X_l) ≤ min(h₂(Pₜ) + Pₜ log((V − N_min) / N_max) + log N_max, log V − KL(1 − Pₜ ‖ qₜ))",
    unit="nats",
    units={"exceed": SHARE, "shuffled": SHARE, "gap_bound": "squared error"},
)
