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
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from transformers.integrations.sdpa_attention import repeat_kv

from vfl.engine.attention_tap import tapped
from vfl.engine.branching import branching
from vfl.engine.memory import prompt_limit
from vfl.engine.states import forward
from vfl.errors import InputError
from vfl.evaluate.items import EvalItem, items_of_probes
from vfl.metrics.accuracy import IMAGES, asked_images, images_asked
from vfl.metrics.edited_prompts import Question, Reply, check_pairs, fitting, groups_of, replies_from
from vfl.metrics.head_score import head_score
from vfl.metrics.prompts import in_lots, prompts_of
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
from vfl.probes.asking import question_of, read_answer
from vfl.probes.pair import Pair

MODES = ("zero", "mean", "uniform", "paper")
STAGES = ("early", "mid", "late")
PAPER_KS = (10, 20, 30, 50)
PAPER_STAGE = 32 * 32 / 3  # heads in a third of LLaVA-1.5-7B

Head = tuple[int, int]  # layer, and its number there


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
        batch: questions held at a time; those that are alike are asked together, with all sets of heads.

    Returns:
        For each function f and stage s, curves "f/s/top" (share of answers, Wilson), "f/s/random" and, with `others`,
        "f/s/others" (means over draws, bootstrap) against k, with the plain model at k = 0; "f/s/top/drop" and its
        like, what is lost of the plain model's accuracy (paired; bootstrap). All are over pairs. Scalar "f/accuracy".
        "masked": the heads of "top" by stage and "random" by stage and draw, most visual first, each [layer, head].

    Raises:
        InputError: without pairs, for an unknown mode or stage, or more heads than a stage has.
    """
    check_pairs(pairs, "head_masking")
    numbers = check(vlm, ks=ks, mode=mode, draws=draws, others=others, stages=stages)
    scores = torch.tensor(head_score(vlm, prompts_of(vlm, pairs), query=query)["heads"])  # type: ignore[arg-type]
    members = {stage: heads_of_stage(scores, stage) for stage in stages}
    generator = torch.Generator().manual_seed(seed)
    shuffled = {
        (stage, draw): [heads[at] for at in torch.randperm(len(heads), generator=generator).tolist()]
        for stage, heads in members.items()
        for draw in range(draws)
    }
    means = mean_outputs(vlm, pairs) if mode == "mean" else {}
    items = items_of_probes(vlm, pairs, IMAGES)

    def drawn(stage: str, k: int, without: Sequence[Head]) -> list[list[Head]]:
        return [[head for head in shuffled[stage, draw] if head not in without][:k] for draw in range(draws)]

    cells = list(product(stages, numbers))
    masked: dict[str, list[list[list[Head]]]] = {"top": [[members[stage][:k]] for stage, k in cells]}
    masked["random"] = [drawn(stage, k, ()) for stage, k in cells]
    if others:
        masked["others"] = [drawn(stage, k, members[stage][:k]) for stage, k in cells]
    sets = [heads for of_line in masked.values() for of_cell in of_line for heads in of_cell]
    answered = _answered(vlm, items, [[], *sets], mode, means, batch)
    plain = [answers[0].right for answers in answered]
    coming = iter(np.array([[answer.right for answer in answers[1:]] for answers in answered]).T)
    # (N,) shares of a cell's sets with which an answer is right
    lines = {
        line: {
            cell: np.mean([next(coming) for _ in of_cell], axis=0) for cell, of_cell in zip(cells, of_line, strict=True)
        }
        for line, of_line in masked.items()
    }
    top = lines.pop("top")
    scalars: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    cut: dict[str, list[bool]] = {}
    at = [0, *numbers]
    for function, rows in by_function([item.group for item in items]).items():
        clusters = [cluster_of(pair) for row in rows if (pair := items[row].pair)]
        cut[function] = [answered[row][0].cut for row in rows]
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


def check(
    vlm: VLM,
    *,
    ks: Sequence[int] | None = None,
    mode: str = "zero",
    draws: int = 2,
    others: bool = False,
    stages: Sequence[str] = STAGES,
) -> list[int]:
    """Numbers of heads, ascending; InputError for an unknown mode or stage, or more heads than a stage has."""
    if mode not in MODES:
        raise InputError(f"mode={mode!r} is unknown; expected one of {', '.join(MODES)}.")
    if unknown := [stage for stage in stages if stage not in STAGES]:
        raise InputError(f"stages={unknown} are unknown; choose from {', '.join(STAGES)}.")
    if draws < 1:
        raise InputError(f"draws={draws}: top heads say little without random ones beside them; give 1 or more.")
    num_heads = vlm.model.config.get_text_config(decoder=True).num_attention_heads
    smallest = min(len(layers_of_stage(stage, vlm.num_layers)) * num_heads for stage in stages)
    numbers = sorted({*(paper_ks(smallest) if ks is None else ks)})
    if not numbers or not 0 < numbers[0] <= numbers[-1] <= smallest:
        raise InputError(f"ks={numbers}: give numbers of heads from 1 to {smallest}, those of the smallest stage.")
    if others and 2 * numbers[-1] > smallest:
        raise InputError(
            f"others: {numbers[-1]} heads that are not among the {numbers[-1]} highest need {2 * numbers[-1]}; the "
            f"smallest stage has {smallest}. Give smaller ks."
        )
    return numbers


def heads_of_stage(scores: torch.Tensor, stage: str) -> list[Head]:
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


def _answered(
    vlm: VLM,
    items: Sequence[EvalItem],
    sets: Sequence[Sequence[Head]],
    mode: str,
    means: Mapping[int, torch.Tensor],
    batch: int,
) -> list[list[Reply]]:
    """For each item its answers with each set of heads masked: items that are alike, with all sets, are one batch."""
    answered: list[list[Reply]] = []
    for lot in in_lots(items, batch):
        questions = [_question(vlm, item) for item in lot]
        answers: dict[tuple[int, int], Reply] = {}
        for group in _groups(vlm, questions):
            rows = list(product(group, range(len(sets))))
            first = questions[group[0]]
            limit = prompt_limit(vlm, first.encoded.length + first.limit)
            run = partial(_run, vlm, questions, sets, mode, means)
            answers |= zip(rows, fitting(vlm, rows, limit, run), strict=True)
        answered += [[answers[at, number] for number in range(len(sets))] for at in range(len(lot))]
    return answered


def _groups(vlm: VLM, questions: Sequence[Question]) -> list[list[int]]:
    """As `groups_of`, of prompts whose tokens and image stand at the same positions."""
    groups: dict[tuple[int, str], list[int]] = {}
    for number, group in enumerate(groups_of(vlm, questions)):
        for at in group:
            encoded = questions[at].encoded
            groups.setdefault((number, f"{encoded.spans} {encoded.positions.tolist()}"), []).append(at)
    return list(groups.values())


def _run(
    vlm: VLM,
    questions: Sequence[Question],
    sets: Sequence[Sequence[Head]],
    mode: str,
    means: Mapping[int, torch.Tensor],
    rows: Sequence[tuple[int, int]],
) -> list[Reply]:
    """Answers of rows: a question and the set of heads that is masked; what rows have in common runs once."""
    distinct = list(dict.fromkeys(at for at, _ in rows))
    edits = [_by_layer(heads, vlm.num_layers) for heads in sets]
    masked = MaskedRows([sets[number] for _, number in rows], mode, means)
    every = masked.heads

    def choose(places: Sequence[int]) -> None:
        masked.heads = [every[place] for place in places]

    with tapped(vlm, rewrite=masked):
        logits, cache = branching(
            vlm,
            [questions[at].encoded for at in distinct],
            [(distinct.index(at), edits[number]) for at, number in rows],
            choose,
            whole=mode == "paper",  # its mean is over the keys that any query sees
        )
        masked.heads = every
        return replies_from(vlm, [questions[at] for at, _ in rows], logits, cache, follow=masked.narrow)


def _by_layer(heads: Sequence[Head], num_layers: int) -> list[frozenset[int] | None]:
    """A set's heads at each layer, None where it has none."""
    return [frozenset(head for at, head in heads if at == layer) or None for layer in range(num_layers)]


def _question(vlm: VLM, item: EvalItem) -> Question:
    pair = item.pair
    assert pair is not None, "items of probes have one"
    encoded = vlm.ask(question_of(vlm, pair), pair.path(item.which))
    return Question(encoded, lambda text: item.correct(read_answer(vlm, pair, text, encoded)), item.max_new_tokens)


class MaskedRows:
    """An edit for the tap (`Rewrite`) with heads of its own for each row of the batch.

    Args:
        heads: for each row the (layer, head) whose outputs are replaced; one set alone holds for all rows.
        mode: what takes their place, see above.
        means: (H, D) by layer, for mode "mean".
    """

    def __init__(
        self, heads: Sequence[Sequence[Head]], mode: str, means: Mapping[int, torch.Tensor] | None = None
    ) -> None:
        self.heads, self.mode, self.means = list(heads), mode, means or {}

    def narrow(self, places: Sequence[int]) -> None:
        """Only these rows go on."""
        self.heads = [self.heads[place] for place in places]

    def __call__(self, layer: int, output: torch.Tensor, values: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """The heads' outputs (B, Q, H, D) with those masked replaced."""
        cells = [(row, head) for row, heads in enumerate(self.heads) for at, head in heads if at == layer]
        if not cells:
            return output
        chosen = sorted({head for _, head in cells})
        masked = torch.zeros(len(self.heads), 1, len(chosen), 1, dtype=torch.bool)
        for row, head in cells:
            masked[row, 0, chosen.index(head)] = True
        if self.mode == "zero":
            instead = output.new_zeros(())
        elif self.mode == "mean":
            instead = self.means[layer].to(output)[chosen]
        else:
            # the paper's mean takes every key that anyone sees
            weights = seen if self.mode == "uniform" else seen.any(-2, keepdim=True)
            even = weights.to(values.dtype) / weights.sum(-1, keepdim=True).clamp_min(1)  # (B or 1, 1, Q or 1, K)
            picked = repeat_kv(values, output.shape[2] // values.shape[1])[:, chosen]
            instead = (even @ picked).transpose(1, 2)
        output = output.clone()
        output[:, :, chosen] = torch.where(masked.to(output.device), instead, output[:, :, chosen])
        return output


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
    check=check,
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
