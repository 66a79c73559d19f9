"""Head masking by stage: accuracy without the k most visual heads of a third of the layers, beside k random ones.

Heads are ranked by their score (vfl/metrics/heads.py). What takes the place of a head's output:

    zero      nothing
    mean      its mean over all positions of the prompts asked
    uniform   the mean of the values that the query sees (even attention to the keys up to it)
    paper     the mean of all values, those after the query included: what the published code does, which lets a
              position read what follows it

Source: "Unveiling Visual Perception in Language Models" (Bi et al., CVPR 2025).

Legend: B batch, Q queries, K keys, H query heads, G key-value heads, D head dimension.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from transformers.integrations.sdpa_attention import repeat_kv

from vfl.engine.attention_tap import Rewrite, tapped
from vfl.engine.states import forward
from vfl.errors import InputError
from vfl.evaluate.answers import Evaluator
from vfl.evaluate.items import items_of_probes
from vfl.metrics.accuracy import IMAGES, asked_images, images_asked
from vfl.metrics.edited_prompts import check_pairs
from vfl.metrics.head_score import head_score
from vfl.metrics.prompts import prompts_of
from vfl.metrics.result import (
    Result,
    by_function,
    cluster_of,
    cut_answers,
    mean_curve,
    result,
    share_curve,
    share_scalar,
)
from vfl.metrics.spec import HEADS, SHARE, Metric
from vfl.models.vlm import VLM
from vfl.probes.pair import Pair

MODES = ("zero", "mean", "uniform", "paper")
STAGES = ("early", "mid", "late")
PAPER_KS = (10, 20, 30, 50)
PAPER_STAGE = 32 * 32 / 3  # heads in a third of LLaVA-1.5-7B


def head_masking(
    vlm: VLM,
    pairs: Sequence[Pair],
    *,
    ks: Sequence[int] | None = None,
    mode: str = "zero",
    draws: int = 2,
    others: bool = False,
    seed: int = 0,
    stages: Sequence[str] = STAGES,
    query: str = "token",
    batch: int = 16,
) -> Result:
    """Accuracy against the number k of masked heads of a stage, for each function.

    Args:
        vlm: the model.
        pairs: probe pairs of any functions, asked on both their images; heads are scored on their target images.
        ks: numbers of heads; by default the paper's 10, 20, 30 and 50 of a stage of 341, in proportion (at least 1, 2,
            3, 4).
        mode: what takes the place of a head's output, see above.
        draws: sets of random heads for each k.
        others: beside them as many sets of k random heads of the stage that are not among its k highest.
        seed: of the random heads.
        stages: of "early", "mid", "late": thirds of the layers.
        query: whose attention scores a head, see vfl/metrics/heads.py.
        batch: questions asked together.

    Returns:
        For each function f and stage s, curves "f/s/top" (share of answers, Wilson), "f/s/random" and, with `others`,
        "f/s/others" (means over draws, bootstrap) against k, with the plain model at k = 0; "f/s/top/drop" and its
        like, what is lost of the plain model's accuracy (paired; bootstrap). All are over pairs. Scalar "f/accuracy".
        "masked": the heads of "top" by stage and "random" by stage and draw, most visual first, each [layer, head].

    Raises:
        InputError: without pairs, for an unknown mode or stage, or more heads than a stage has.
    """
    check_pairs(pairs, "head_masking")
    if mode not in MODES:
        raise InputError(f"mode={mode!r} is unknown; expected one of {', '.join(MODES)}.")
    if unknown := [stage for stage in stages if stage not in STAGES]:
        raise InputError(f"stages={unknown} are unknown; choose from {', '.join(STAGES)}.")
    if draws < 1:
        raise InputError(f"draws={draws}: top heads say little without random ones beside them; give 1 or more.")
    scores = torch.tensor(head_score(vlm, prompts_of(vlm, pairs), query=query)["heads"])  # type: ignore[arg-type]
    members = {stage: heads_of_stage(scores, stage) for stage in stages}
    smallest = min(len(heads) for heads in members.values())
    numbers = sorted({*(paper_ks(smallest) if ks is None else ks)})
    if not numbers or not 0 < numbers[0] <= numbers[-1] <= smallest:
        raise InputError(f"ks={numbers}: give numbers of heads from 1 to {smallest}, those of the smallest stage.")
    if others and 2 * numbers[-1] > smallest:
        raise InputError(
            f"others: {numbers[-1]} heads that are not among the {numbers[-1]} highest need {2 * numbers[-1]}; the "
            f"smallest stage has {smallest}. Give smaller ks."
        )
    generator = torch.Generator().manual_seed(seed)
    shuffled = {
        (stage, draw): [heads[at] for at in torch.randperm(len(heads), generator=generator).tolist()]
        for stage, heads in members.items()
        for draw in range(draws)
    }
    means = mean_outputs(vlm, pairs) if mode == "mean" else {}
    items = items_of_probes(vlm, pairs, IMAGES)
    evaluator = Evaluator(vlm, items, batch=batch)

    def asked(heads: Sequence[tuple[int, int]]) -> list[bool]:
        with tapped(vlm, rewrite=masked_heads(heads, mode, means)):
            return [answer.correct for answer in evaluator.answer()]

    answered = evaluator.answer()
    plain = [answer.correct for answer in answered]
    top = {(stage, k): asked(members[stage][:k]) for stage, k in product(stages, numbers)}

    def drawn(stage: str, k: int, without: Sequence[tuple[int, int]]) -> Any:
        """(N,) shares of the draws in which an answer is right."""
        heads = [[head for head in shuffled[stage, draw] if head not in without][:k] for draw in range(draws)]
        return np.mean([asked(chosen) for chosen in heads], axis=0)

    random = {(stage, k): drawn(stage, k, ()) for stage, k in product(stages, numbers)}
    lines = {"random": random}
    if others:
        lines["others"] = {(stage, k): drawn(stage, k, members[stage][:k]) for stage, k in product(stages, numbers)}
    scalars: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    cut: dict[str, list[bool]] = {}
    at = [0, *numbers]
    for function, rows in by_function([item.group for item in items]).items():
        clusters = [cluster_of(pair) for row in rows if (pair := items[row].pair)]
        cut[function] = [answered[row].cut for row in rows]
        scalars[f"{function}/accuracy"] = share_scalar([plain[row] for row in rows], clusters=clusters)
        for stage in stages:
            by_k = [[plain[row], *(top[stage, k][row] for k in numbers)] for row in rows]
            curves[f"{function}/{stage}/top"] = share_curve(by_k, axis="k", at=at, clusters=clusters)
            curves[f"{function}/{stage}/top/drop"] = mean_curve(_drops(by_k), axis="k", at=at, clusters=clusters)
            for line, right in lines.items():
                by_k = [[plain[row], *(right[stage, k][row] for k in numbers)] for row in rows]
                curves[f"{function}/{stage}/{line}"] = mean_curve(by_k, axis="k", at=at, clusters=clusters)
                curves[f"{function}/{stage}/{line}/drop"] = mean_curve(_drops(by_k), axis="k", at=at, clusters=clusters)
    options = {
        "ks": numbers,
        "mode": mode,
        "draws": draws,
        "others": others,
        "seed": seed,
        "stages": list(stages),
        "query": query,
    }
    listed = {
        "top": {stage: _listed(members[stage][: numbers[-1]]) for stage in stages},
        "random": {stage: [_listed(shuffled[stage, draw][: numbers[-1]]) for draw in range(draws)] for stage in stages},
    }
    return result(
        len(pairs), scalars, curves, options | {"images": images_asked(pairs)}, masked=listed, **cut_answers(cut)
    )


def layers_of_stage(stage: str, num_layers: int) -> range:
    """A third of the layers."""
    third = STAGES.index(stage)
    return range(round(third * num_layers / 3), round((third + 1) * num_layers / 3))


def heads_of_stage(scores: torch.Tensor, stage: str) -> list[tuple[int, int]]:
    """(layer, head) of a third of the layers, highest of the (L, H) scores first."""
    num_layers, num_heads = scores.shape
    layers = layers_of_stage(stage, num_layers)
    first = layers.start
    ranked = scores[first : layers.stop].flatten().argsort(descending=True, stable=True).tolist()
    return [(first + at // num_heads, at % num_heads) for at in ranked]


def paper_ks(num_heads: int) -> list[int]:
    """The paper's 10, 20, 30 and 50 heads of a stage of 341, in proportion and at least 1, 2, 3 and 4."""
    scaled = [max(least, round(k * num_heads / PAPER_STAGE)) for least, k in enumerate(PAPER_KS, start=1)]
    return [k for k in scaled if k <= num_heads]


def masked_heads(
    heads: Sequence[tuple[int, int]], mode: str, means: Mapping[int, torch.Tensor] | None = None
) -> Rewrite:
    """An edit for the tap: the outputs of (layer, head) replaced by `mode`; `means` are (H, D) by layer."""
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        by_layer.setdefault(layer, []).append(head)

    def rewrite(layer: int, output: torch.Tensor, values: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        if layer not in by_layer:
            return output
        chosen = by_layer[layer]
        output = output.clone()
        if mode == "zero":
            output[:, :, chosen] = 0
        elif mode == "mean":
            assert means is not None
            output[:, :, chosen] = means[layer].to(output)[chosen]
        else:
            # the paper's mean takes every key that anyone sees, so padding stays out
            weights = seen if mode == "uniform" else seen.any(-2, keepdim=True)
            even = weights.to(values.dtype) / weights.sum(-1, keepdim=True).clamp_min(1)  # (B or 1, 1, Q or 1, K)
            picked = repeat_kv(values, output.shape[2] // values.shape[1])[:, chosen]
            output[:, :, chosen] = (even @ picked).transpose(1, 2)
        return output

    return rewrite


def mean_outputs(vlm: VLM, pairs: Sequence[Pair]) -> dict[int, torch.Tensor]:
    """(H, D) by layer: each head's output before the output projection, averaged over positions, then prompts."""
    sums: dict[int, torch.Tensor] = {}

    def add(layer: int, output: torch.Tensor, values: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        mean = output[0].to(torch.promote_types(output.dtype, torch.float32)).mean(0)
        sums[layer] = sums[layer] + mean if layer in sums else mean
        return output

    prompts = sum(len(asked_images(pair)) for pair in pairs)
    with tapped(vlm, rewrite=add):
        for encoded in prompts_of(vlm, pairs, IMAGES):
            forward(vlm, encoded)
    return {layer: total / prompts for layer, total in sums.items()}


def _drops(by_k: Sequence[Sequence[float]]) -> list[list[float]]:
    """Each answer's loss against the plain model's, which comes first."""
    return [[float(plain) - float(masked) for masked in (plain, *rest)] for plain, *rest in by_k]


def _listed(heads: Sequence[tuple[int, int]]) -> list[list[int]]:
    return [[layer, head] for layer, head in heads]


SPEC = Metric(
    function=head_masking,
    needs="pairs",
    title="Masking visual heads",
    read="Accuracy with the highest-scored heads of a third of the depth switched off, beside as many random ones. The "
    "gap between the two is what is special about those heads.",
    use="Only heads whose loss hurts more than as many random ones are worth keeping when heads are pruned.",
    source=HEADS,
    equation="accuracy(k) with the outputs of the k highest-scored heads of a stage replaced",
    unit=SHARE,
    units={"drop": SHARE},
)
