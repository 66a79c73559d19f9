"""Token ablation: which image tokens an answer needs, by setting some of them to the mean vision embedding.

    E'[i] = e_bar for i in S, E[i] otherwise

Sets S: the object's tokens, those with one and two rings around them, register tokens (embeddings of outlying norm),
those of the highest integrated gradients, and random ones. Asked are a description (does it still name the object), a
poll ("Is there a ...?", yes to no), and the pair's own question (does its first token change). Source: Neo et al.,
"Towards Interpreting Visual Information Processing in Vision-Language Models" (ICLR 2025).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vfl.engine.decoder_inputs import decoder_inputs, take_rows
from vfl.engine.vision_embeddings import mean_embedding
from vfl.errors import InputError
from vfl.metrics.accuracy import IMAGES, asked_images, images_asked
from vfl.metrics.edited_prompts import (
    ROWS,
    Question,
    Reply,
    check_pairs,
    needs_object,
    question_on,
    replies,
    reply,
)
from vfl.metrics.gradients import STEPS, integrated_gradients
from vfl.metrics.mean_embedding import cached_mean
from vfl.metrics.objects import Places, object_tokens
from vfl.metrics.result import Result, cut_answers, mean_scalar, result, share_scalar
from vfl.metrics.spec import NEO, SHARE, Metric
from vfl.models.encode import Encoded, ImageLike
from vfl.models.vlm import VLM
from vfl.probes import match
from vfl.probes.functions import recognition
from vfl.probes.pair import Pair, Which

EVALUATIONS = ("generative", "polling", "vqa")
DESCRIBE = "Describe the image."
DESCRIPTION_TOKENS = 64
REGISTER_DEVIATIONS = 2.0
# Of the image's tokens; the paper's 40 and 100, and 60 and 250, of 576.
GRADIENT_SHARES = (0.07, 0.17)
RANDOM_SHARES = (0.10, 0.43)


def token_ablation(
    vlm: VLM,
    pairs: Sequence[Pair],
    *,
    evaluations: Sequence[str] = EVALUATIONS,
    images: str | None = None,
    cache: str | None = None,
    noise_filter: bool = True,
    gradient_shares: Sequence[float] = GRADIENT_SHARES,
    gradient_steps: int = STEPS,
    random_shares: Sequence[float] = RANDOM_SHARES,
    seed: int = 0,
    describe: str = DESCRIBE,
    description_tokens: int = DESCRIPTION_TOKENS,
) -> Result:
    """Share of rightly given answers that flip when some image tokens are set to the mean embedding.

    On DeepStack models their features at these tokens are set to the mean over the image's tokens.

    Args:
        vlm: the model.
        pairs: probe pairs. An image needs a box and its pair a label for the first two evaluations; without a box the
            third leaves out the object's sets.
        evaluations: of "generative" (the label is named in a description), "polling" (the answer is no longer yes) and
            "vqa" (the first token of the pair's own answer changes).
        images: folder of pictures for e_bar; by default the pairs' own images.
        cache: file (safetensors) that keeps the folder's e_bar.
        noise_filter: keep only samples whose answer is wrong once the boxes are filled with noise (images without a box
            are kept). Every sample must be answered rightly at first.
        gradient_shares: sizes of the sets of highest integrated gradients, as shares of the image's tokens.
        gradient_steps: of integrated gradients, each a forward and a backward pass; 0 leaves them out.
        random_shares: sizes of the random sets; one of the object's size is added.
        seed: of the random sets.
        describe: what is asked for a description.
        description_tokens: its bound.

    Returns:
        For each evaluation e and set s, scalars "e/s" (share of kept samples that flip, Wilson) and "e/s/tokens" (mean
        size of the set), "e/right" and "e/kept" (shares of images asked). "without_object": ids of pairs without a box
        or a label.

    Raises:
        InputError: without pairs, for unknown evaluations, or shares outside of 0 .. 1.
    """
    check_pairs(pairs, "token_ablation")
    if unknown := [name for name in evaluations if name not in EVALUATIONS]:
        raise InputError(f"evaluations={unknown} are unknown; choose from {', '.join(EVALUATIONS)}.")
    if outside := [share for share in (*gradient_shares, *random_shares) if not 0 < share <= 1]:
        raise InputError(f"Sizes of sets are shares of the image's tokens, above 0 and at most 1; got {outside}.")
    if images is None:
        blank = mean_embedding(vlm, dict.fromkeys(pair.path(which) for pair in pairs for which in asked_images(pair)))
    else:
        blank = cached_mean(vlm, Path(images), None if cache is None else Path(cache))
    places, generator = Places(vlm), torch.Generator().manual_seed(seed)
    scalars: dict[str, Any] = {}
    cut: dict[str, list[bool]] = {}
    for evaluation in evaluations:
        right, kept = [], []
        flips: dict[str, list[bool]] = {}
        sizes: dict[str, list[float]] = {}
        for pair in pairs:
            for which in asked_images(pair):
                boxes = pair.boxes.get(which, [])
                if evaluation != "vqa" and not (boxes and pair.label):
                    continue

                def asked(vlm: VLM, pair: Pair, which: Which, image: ImageLike, kind: str = evaluation) -> Question:
                    return _question(vlm, pair, which, image, kind, describe, description_tokens)

                question = asked(vlm, pair, which, pair.path(which))
                plain = reply(vlm, question)
                right.append(plain.right)
                if evaluation == "vqa":  # the others are meant to end early
                    cut.setdefault(evaluation, []).append(plain.cut)
                filtered = noise_filter and bool(boxes)
                kept.append(plain.right and (not filtered or needs_object(vlm, pair, which, asked)))
                if not kept[-1]:
                    continue
                regions = places.of(question.encoded) if boxes else None
                sets = token_sets(vlm, question.encoded, regions, boxes, random_shares, generator)
                if gradient_steps:
                    scores = integrated_gradients(vlm, question.encoded, plain.token, blank, steps=gradient_steps)
                    sets |= {f"gradients_{_percent(share)}": _top(scores, share) for share in gradient_shares}
                for name, edited in zip(sets, ablated(vlm, question, list(sets.values()), blank), strict=True):
                    flips.setdefault(name, []).append(_flipped(evaluation, plain, edited))
                    sizes.setdefault(name, []).append(float(sets[name].sum()))
        if not right:
            continue
        scalars[f"{evaluation}/right"] = share_scalar(right)
        scalars[f"{evaluation}/kept"] = share_scalar(kept)
        for name, flags in flips.items():
            scalars[f"{evaluation}/{name}"] = share_scalar(flags)
            scalars[f"{evaluation}/{name}/tokens"] = mean_scalar(sizes[name])
    options = {
        "evaluations": list(evaluations),
        "mean_embedding": "the pairs' images" if images is None else images,
        "noise_filter": noise_filter,
        "gradient_shares": list(gradient_shares),
        "gradient_steps": gradient_steps,
        "random_shares": list(random_shares),
        "seed": seed,
        "describe": describe,
        "description_tokens": description_tokens,
        "register_deviations": REGISTER_DEVIATIONS,
        "images": images_asked(pairs),
        "object": "any overlap with the box",
    }
    without = [pair.id for pair in pairs if not pair.label or not any(pair.boxes.get(which) for which in IMAGES)]
    return result(len(pairs), scalars, {}, options, without_object=without, **cut_answers(cut))


def token_sets(
    vlm: VLM,
    encoded: Encoded,
    regions: torch.Tensor | None,
    boxes: Sequence[Sequence[float]],
    random_shares: Sequence[float],
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """(V,) bool by name: the object's sets where there is a box, register tokens and random ones; empty sets left out.

    Register tokens: ||E[i]|| > mean + 2 std over the image's tokens.
    """
    embeds = decoder_inputs(vlm, encoded.inputs)["inputs_embeds"]
    rows = embeds[0, (encoded.input_ids[0] == vlm.parts.image_token_id).to(embeds.device)]
    norms = rows.to(torch.promote_types(rows.dtype, torch.float32)).norm(dim=-1).cpu()
    sets = {}
    if regions is not None:
        sets = {
            name: object_tokens(regions, boxes, ring) for ring, name in enumerate(("object", "object+1", "object+2"))
        }
    sets["register"] = norms > norms.mean() + REGISTER_DEVIATIONS * norms.std()
    shuffled = torch.randperm(len(norms), generator=generator)
    counts = {f"random_{_percent(share)}": _count(share, len(norms)) for share in random_shares}
    if "object" in sets:
        counts = {"random_object": int(sets["object"].sum())} | counts
    for name, count in counts.items():
        sets[name] = torch.zeros(len(norms), dtype=torch.bool).index_fill(0, shuffled[:count], True)
    return {name: tokens for name, tokens in sets.items() if tokens.any()}


def ablated(vlm: VLM, question: Question, sets: Sequence[torch.Tensor], blank: torch.Tensor) -> list[Reply]:
    """Answers with each set of image tokens, (V,) bool, at the mean embedding (d,)."""
    inputs = decoder_inputs(vlm, question.encoded.inputs)
    answers: list[Reply] = []
    for start in range(0, len(sets), ROWS):
        answers += replies(
            vlm, question, without_tokens(vlm, question.encoded, inputs, sets[start : start + ROWS], blank)
        )
    return answers


def without_tokens(
    vlm: VLM, encoded: Encoded, inputs: Mapping[str, Any], sets: Sequence[torch.Tensor], blank: torch.Tensor
) -> dict[str, Any]:
    """The decoder's arguments, a row for each set of image tokens that is replaced."""
    many = take_rows(inputs, [0] * len(sets))
    embeds = many["inputs_embeds"].clone()
    here = (encoded.input_ids[0] == vlm.parts.image_token_id).nonzero().flatten().to(embeds.device)
    chosen = torch.stack(list(sets)).to(embeds.device)  # (B, V)
    for row, tokens in enumerate(chosen):
        embeds[row, here[tokens]] = blank.to(embeds)
    many["inputs_embeds"] = embeds
    if (features := inputs.get("deepstack_visual_embeds")) is not None:
        flat = chosen.flatten()[:, None]
        many["deepstack_visual_embeds"] = [
            torch.where(flat.to(layer.device), layer.mean(0), layer.repeat(len(sets), 1)) for layer in features
        ]
    return many


def _question(
    vlm: VLM, pair: Pair, which: Which, image: ImageLike, evaluation: str, describe: str, description_tokens: int
) -> Question:
    if evaluation == "vqa":
        return question_on(vlm, pair, which, image)
    assert pair.label is not None
    if evaluation == "polling":
        encoded = vlm.ask(recognition.question(pair.label), image)
        return Question(encoded, lambda text: match.read("yesno", text) == "yes", 4)
    named = match.words(pair.label)
    return Question(vlm.ask(describe, image), lambda text: _names(match.words(text), named), description_tokens)


def _names(spoken: tuple[str, ...], named: tuple[str, ...]) -> bool:
    return any(spoken[at : at + len(named)] == named for at in range(len(spoken) - len(named) + 1))


def _flipped(evaluation: str, plain: Reply, edited: Reply) -> bool:
    return plain.token != edited.token if evaluation == "vqa" else not edited.right


def _top(scores: torch.Tensor, share: float) -> torch.Tensor:
    chosen = scores.argsort(descending=True, stable=True)[: _count(share, len(scores))]
    return torch.zeros(len(scores), dtype=torch.bool).index_fill(0, chosen, True)


def _count(share: float, num_tokens: int) -> int:
    return max(1, round(share * num_tokens))


def _percent(share: float) -> str:
    return f"{100 * share:g}%"


SPEC = Metric(
    function=token_ablation,
    needs="pairs",
    title="Ablating vision tokens",
    read="Share of right answers that turn wrong when a set of vision tokens is replaced by the mean embedding. "
    "Compare sets of equal size: the object’s own tokens (and a ring or two around them) against as many random ones.",
    source=NEO,
    equation="E′[i] = ē for i in S, E[i] otherwise",
    unit=SHARE,
    units={"tokens": "tokens"},
    only_images="it replaces the tokens of an object's place in the picture",
)
