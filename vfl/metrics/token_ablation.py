"""Token ablation: which image tokens an answer needs, by setting some of them to the mean vision embedding.

    E'[i] = e_bar for i in S, E[i] otherwise

Sets S: the object's tokens, those with one and two rings around them, register tokens (embeddings of outlying norm),
those of the highest integrated gradients, random ones, and a user's own. Asked are a description (does it still name
the object), a poll ("Is there a ...?", yes to no), and the pair's own question (does its first token change). Source:
Neo et al., "Towards Interpreting Visual Information Processing in Vision-Language Models" (ICLR 2025).
"""

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
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
from vfl.metrics.result import Result, cluster_of, cut_answers, mean_scalar, result, share_scalar
from vfl.metrics.spec import NEO, SHARE, Metric
from vfl.models.encode import Encoded, ImageLike
from vfl.models.vlm import VLM
from vfl.probes import match
from vfl.probes.asking import first_tokens
from vfl.probes.functions import recognition
from vfl.probes.pair import Pair, Which

logger = logging.getLogger(__name__)

EVALUATIONS = ("generative", "polling", "vqa")
DESCRIBE = "Describe the image."
DESCRIPTION_TOKENS = 64
REGISTER_DEVIATIONS = 2.0
# Of the image's tokens; the paper's 40 and 100, and 60 and 250, of 576.
GRADIENT_SHARES = (0.07, 0.17)
RANDOM_SHARES = (0.10, 0.43)
INCOMPLETE = 0.05  # a mean residual of integrated gradients beyond which more steps are advised
YES = ("Yes", "yes")

Chosen = Sequence[int] | Sequence[Sequence[float]]


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
    chosen: Mapping[str, Chosen] | None = None,
    seed: int = 0,
    prefix: str = "",
    describe: str = DESCRIBE,
    description_tokens: int = DESCRIPTION_TOKENS,
) -> Result:
    """Share of rightly given answers that flip when some image tokens are set to the mean embedding.

    All sets of an evaluation are tried on the same samples: the images whose object has a box in the picture that the
    model gets, and a name. On DeepStack models their features at these tokens are set to the mean over the image's.

    Args:
        vlm: the model.
        pairs: probe pairs. Images without a box (such as canvases without the object), and pairs without a label, are
            left out.
        evaluations: of "generative" (the label is named in a description), "polling" (the answer is no longer yes) and
            "vqa" (the first token of the pair's own answer changes).
        images: folder of pictures for e_bar; by default the pairs' own images.
        cache: file (safetensors) that keeps the folder's e_bar.
        noise_filter: keep only samples whose answer is wrong once the boxes are filled with noise. Every sample must be
            answered rightly at first.
        gradient_shares: sizes of the sets of highest integrated gradients, as shares of the image's tokens. They are
            those of "Yes" to the polling question, one ranking an image for all evaluations.
        gradient_steps: of integrated gradients, each a forward and a backward pass; 0 leaves them out.
        random_shares: sizes of the random sets; one of the object's size is added.
        chosen: name -> a set of your own, the same on all images: numbers of image tokens in reading order, or boxes
            [x0, y0, x1, y1] in shares of the image's sides, 0 to 1.
        seed: of the random sets.
        prefix: beginning of the answer in "vqa", such as the paper's "It is a".
        describe: what is asked for a description.
        description_tokens: its bound.

    Returns:
        For each evaluation e and set s, scalars "e/s" (share of kept samples that flip, Wilson; an empty set flips
        nothing) and "e/s/tokens" (mean size of the set), "e/right" and "e/kept" (shares of images asked); and
        "gradients/residual", the mean share by which the attributions miss completeness. "without_object": ids of pairs
        without a box or a label.

    Raises:
        InputError: without pairs, for unknown evaluations, shares outside of 0 .. 1, or sets that an image lacks.
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
    outcomes = {evaluation: _Outcomes() for evaluation in evaluations}
    residuals: list[float] = []
    ranked: list[Hashable] = []
    for pair in pairs:
        for which in asked_images(pair):
            boxes = pair.boxes.get(which, [])
            if not boxes or not pair.label:
                continue

            def asked(vlm: VLM, pair: Pair, which: Which, image: ImageLike, kind: str) -> Question:
                return _question(vlm, pair, which, image, kind, describe, description_tokens, prefix)

            questions = {kind: asked(vlm, pair, which, pair.path(which), kind) for kind in evaluations}
            encoded = next(iter(questions.values())).encoded
            regions = places.of(encoded)
            if not object_tokens(regions, boxes).any():  # in a part that the processor cuts off
                continue
            kept: dict[str, Reply] = {}
            for kind, question in questions.items():
                plain = reply(vlm, question)
                needed = plain.right and (not noise_filter or needs_object(vlm, pair, which, partial(asked, kind=kind)))
                outcomes[kind].clusters.append(cluster_of(pair))
                outcomes[kind].right.append(plain.right)
                outcomes[kind].kept.append(needed)
                outcomes[kind].cut.append(plain.cut)
                if needed:
                    kept[kind] = plain
            if not kept:
                continue
            sets = token_sets(vlm, encoded, regions, boxes, random_shares, generator)
            sets |= {name: chosen_tokens(name, own, regions, encoded) for name, own in (chosen or {}).items()}
            if gradient_steps:
                poll = asked(vlm, pair, which, pair.path(which), "polling")
                attribution = integrated_gradients(vlm, poll.encoded, yes_token(vlm, poll), blank, steps=gradient_steps)
                residuals.append(attribution.residual)
                ranked.append(cluster_of(pair))
                for share in gradient_shares:
                    sets[f"gradients_{_percent(share)}"] = _top(attribution.scores, share)
            for kind, plain in kept.items():
                answers = ablated(vlm, questions[kind], list(sets.values()), blank)
                for (name, tokens), edited in zip(sets.items(), answers, strict=True):
                    flipped = bool(tokens.any()) and _flipped(kind, plain, edited)
                    outcomes[kind].flips.setdefault(name, []).append(flipped)
                    outcomes[kind].sizes.setdefault(name, []).append(float(tokens.sum()))
    scalars: dict[str, Any] = {}
    for evaluation, outcome in outcomes.items():
        if not outcome.right:
            continue
        scalars[f"{evaluation}/right"] = share_scalar(outcome.right, clusters=outcome.clusters)
        scalars[f"{evaluation}/kept"] = share_scalar(outcome.kept, clusters=outcome.clusters)
        of_kept = [name for name, needed in zip(outcome.clusters, outcome.kept, strict=True) if needed]
        for name, flags in outcome.flips.items():
            scalars[f"{evaluation}/{name}"] = share_scalar(flags, clusters=of_kept)
            scalars[f"{evaluation}/{name}/tokens"] = mean_scalar(outcome.sizes[name], clusters=of_kept)
    if residuals:
        scalars["gradients/residual"] = mean_scalar(residuals, clusters=ranked)
        if (mean := sum(residuals) / len(residuals)) > INCOMPLETE:
            logger.warning(
                "integrated gradients miss completeness by %.0f%% on average with gradient_steps=%d: their ranking is "
                "rough; give more steps.",
                100 * mean,
                gradient_steps,
            )
    options = {
        "evaluations": list(evaluations),
        "mean_embedding": "the pairs' images" if images is None else images,
        "noise_filter": noise_filter,
        "gradient_shares": list(gradient_shares),
        "gradient_steps": gradient_steps,
        "gradients": 'of "Yes" to the polling question',
        "random_shares": list(random_shares),
        "chosen": {name: list(own) for name, own in (chosen or {}).items()},
        "seed": seed,
        "prefix": prefix,
        "describe": describe,
        "description_tokens": description_tokens,
        "register_deviations": REGISTER_DEVIATIONS,
        "images": images_asked(pairs),
        "object": "any overlap with the box",
    }
    without = [pair.id for pair in pairs if not pair.label or not any(pair.boxes.get(which) for which in IMAGES)]
    # descriptions and polls are meant to end early
    cut = cut_answers({"vqa": outcomes["vqa"].cut} if "vqa" in outcomes and outcomes["vqa"].cut else {})
    return result(len(pairs), scalars, {}, options, without_object=without, **cut)


@dataclass
class _Outcomes:
    """What becomes of the samples of an evaluation: of all, and by set of those kept."""

    clusters: list[Hashable] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    kept: list[bool] = field(default_factory=list)
    cut: list[bool] = field(default_factory=list)
    flips: dict[str, list[bool]] = field(default_factory=dict)
    sizes: dict[str, list[float]] = field(default_factory=dict)


def token_sets(
    vlm: VLM,
    encoded: Encoded,
    regions: torch.Tensor,
    boxes: Sequence[Sequence[float]],
    random_shares: Sequence[float],
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """(V,) bool by name: the object's sets, register tokens (perhaps none) and random ones.

    Register tokens: ||E[i]|| > mean + 2 std over the image's tokens.
    """
    embeds = decoder_inputs(vlm, encoded.inputs)["inputs_embeds"]
    rows = embeds[0, (encoded.input_ids[0] == vlm.parts.image_token_id).to(embeds.device)]
    norms = rows.to(torch.promote_types(rows.dtype, torch.float32)).norm(dim=-1).cpu()
    sets = {name: object_tokens(regions, boxes, ring) for ring, name in enumerate(("object", "object+1", "object+2"))}
    sets["register"] = norms > norms.mean() + REGISTER_DEVIATIONS * norms.std()
    shuffled = torch.randperm(len(norms), generator=generator)
    counts = {"random_object": int(sets["object"].sum())}
    counts |= {f"random_{_percent(share)}": _count(share, len(norms)) for share in random_shares}
    for name, count in counts.items():
        sets[name] = _at(shuffled[:count], len(norms))
    return sets


def chosen_tokens(name: str, own: Chosen, regions: torch.Tensor, encoded: Encoded) -> torch.Tensor:
    """(V,) bool of a set that a user chose, see `chosen` of `token_ablation`.

    Raises:
        InputError: for what is neither numbers of tokens that the image has nor boxes within it.
    """
    numbers = [token for token in own if isinstance(token, int) and 0 <= token < len(regions)]
    if own and len(numbers) == len(own):
        return _at(torch.tensor(numbers), len(regions))
    width, height = encoded.image_sizes[0]
    boxes: list[list[float]] = []
    for box in own:
        if (
            isinstance(box, int | float)
            or len(box) != 4
            or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1)
        ):
            raise InputError(
                f"The set {name!r} holds {box}; expected numbers of image tokens, 0 to {len(regions) - 1}, or boxes "
                "[x0, y0, x1, y1] in shares of the image's sides, 0 to 1."
            )
        boxes.append([box[0] * width, box[1] * height, box[2] * width, box[3] * height])
    return object_tokens(regions, boxes)


def yes_token(vlm: VLM, poll: Question) -> int:
    """The likeliest of the tokens that "Yes" begins with, for a polling question."""
    likely = reply(vlm, poll).probabilities
    return max(first_tokens(vlm, YES), key=lambda token: float(likely[token]))


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
    vlm: VLM,
    pair: Pair,
    which: Which,
    image: ImageLike,
    evaluation: str,
    describe: str,
    description_tokens: int,
    prefix: str,
) -> Question:
    if evaluation == "vqa":
        return question_on(vlm, pair, which, image, prefix)
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
    return _at(chosen, len(scores))


def _at(places: torch.Tensor, length: int) -> torch.Tensor:
    return torch.zeros(length, dtype=torch.bool).index_fill(0, places, True)


def _count(share: float, num_tokens: int) -> int:
    return max(1, round(share * num_tokens))


def _percent(share: float) -> str:
    return f"{100 * share:g}%"


SPEC = Metric(
    function=token_ablation,
    needs="pairs with boxes and labels",
    title="Ablating vision tokens",
    read="Share of right answers that turn wrong when a set of vision tokens is replaced by the mean embedding. "
    "Compare sets of equal size: the object’s own tokens (and a ring or two around them) against as many random ones. "
    "Integrated gradients rank the tokens by what speaks for “Yes, there is one”; a residual of more than a few per "
    "cent says that they need more steps.",
    use="If the object’s tokens matter no more than as many random ones, the answers do not rest on the object: look "
    "at no-image accuracy before you trust them.",
    source=NEO,
    equation="E′[i] = ē for i in S, E[i] otherwise",
    unit=SHARE,
    dots="share of right answers that turn wrong",
    units={"tokens": "tokens", "residual": "share of the logit’s change"},
    only_images="it replaces the tokens of an object's place in the picture",
)
