"""Token ablation: which image tokens an answer needs, by setting some of them to the mean vision embedding.

    E'[i] = e_bar for i in S, E[i] otherwise

Sets S: the object's tokens, those with one and two rings around them, register tokens (embeddings of outlying norm),
those of the highest integrated gradients, random ones, and a user's own. Asked are a description (does it still name
the object), a poll ("Is there a ...?", yes to no), and the pair's own question (does its first token change). Source:
Neo et al., "Towards Interpreting Visual Information Processing in Vision-Language Models" (ICLR 2025).
"""

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vfl.engine.vision_embeddings import embeddings_of_each, mean_of
from vfl.errors import InputError
from vfl.metrics.accuracy import IMAGES, asked_images, images_asked
from vfl.metrics.blanked_tokens import ablated_all
from vfl.metrics.edited_prompts import (
    Question,
    Reply,
    boxed_images,
    check_pairs,
    question_on,
    replies_of,
    reply,
)
from vfl.metrics.gradients import STEPS, integrated_gradients
from vfl.metrics.mean_embedding import cached_mean
from vfl.metrics.objects import Places, noised, object_tokens
from vfl.metrics.prompts import in_lots
from vfl.metrics.result import Result, cluster_of, cut_answers, mean_scalar, result, share_scalar
from vfl.metrics.spec import NEO, SHARE, Metric
from vfl.metrics.token_sets import REGISTER_DEVIATIONS, Chosen, chosen_tokens, percent, token_sets, top_tokens
from vfl.models.encode import Encoded, ImageLike
from vfl.models.vlm import VLM
from vfl.probes import match
from vfl.probes.asking import first_tokens, question_of
from vfl.probes.functions import recognition
from vfl.probes.pair import Pair, Which

logger = logging.getLogger(__name__)

EVALUATIONS = ("generative", "polling", "vqa")
DESCRIBE = "Describe the image."
DESCRIPTION_TOKENS = 64
# Of the image's tokens; the paper's 40 and 100, and 60 and 250, of 576.
GRADIENT_SHARES = (0.07, 0.17)
RANDOM_SHARES = (0.10, 0.43)
INCOMPLETE = 0.05  # a mean residual of integrated gradients beyond which more steps are advised
YES = ("Yes", "yes")


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
    check(
        vlm,
        evaluations=evaluations,
        gradient_shares=gradient_shares,
        gradient_steps=gradient_steps,
        random_shares=random_shares,
    )
    if images is None:
        blank = _mean_of_own(vlm, pairs)
    else:
        blank = cached_mean(vlm, Path(images), None if cache is None else Path(cache))
    places, generator = Places(vlm), torch.Generator().manual_seed(seed)
    outcomes = {evaluation: _Outcomes() for evaluation in evaluations}
    residuals: list[float] = []
    ranked: list[Hashable] = []

    def asked(vlm: VLM, pair: Pair, which: Which, image: ImageLike, kind: str) -> Question:
        return _question(vlm, pair, which, image, kind, describe, description_tokens, prefix)

    for samples in in_lots(_samples(vlm, pairs, asked, evaluations, places)):
        plain = _answers(vlm, [sample.questions for sample in samples])
        needed = _needed(vlm, samples, plain, asked if noise_filter else None)
        tried: list[tuple[int, str]] = []
        sets_of: dict[int, dict[str, torch.Tensor]] = {}
        for at, sample in enumerate(samples):
            for kind, answer in plain[at].items():
                outcomes[kind].clusters.append(cluster_of(sample.pair))
                outcomes[kind].right.append(answer.right)
                outcomes[kind].kept.append(kind in needed[at])
                outcomes[kind].cut.append(answer.cut)
            if not needed[at]:
                continue
            tried += [(at, kind) for kind in needed[at]]
            boxes = sample.pair.boxes[sample.which]
            sets = token_sets(vlm, sample.encoded, sample.regions, boxes, random_shares, generator)
            for name, own in (chosen or {}).items():
                sets[name] = chosen_tokens(name, own, sample.regions, sample.encoded)
            if gradient_steps:
                poll = sample.questions.get("polling")
                poll = poll or asked(vlm, sample.pair, sample.which, sample.pair.path(sample.which), "polling")
                yes = yes_token(vlm, plain[at].get("polling") or reply(vlm, poll))
                attribution = integrated_gradients(vlm, poll.encoded, yes, blank, steps=gradient_steps)
                residuals.append(attribution.residual)
                ranked.append(cluster_of(sample.pair))
                for share in gradient_shares:
                    sets[f"gradients_{percent(share)}"] = top_tokens(attribution.scores, share)
            sets_of[at] = sets
        edited = ablated_all(
            vlm, [(samples[at].questions[kind], list(sets_of[at].values())) for at, kind in tried], blank
        )
        for (at, kind), answers in zip(tried, edited, strict=True):
            for (name, tokens), answer in zip(sets_of[at].items(), answers, strict=True):
                flipped = bool(tokens.any()) and _flipped(kind, plain[at][kind], answer)
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


def _mean_of_own(vlm: VLM, pairs: Sequence[Pair]) -> torch.Tensor:
    """(d,) e_bar over the images that the pairs are asked on, each once."""
    shown = {pair.path(which): question_of(vlm, pair) for pair in pairs for which in asked_images(pair)}
    prompts = (vlm.ask(question, path) for path, question in shown.items())
    return mean_of(embedding for lot in in_lots(prompts) for embedding in embeddings_of_each(vlm, lot))


@dataclass
class _Outcomes:
    """What becomes of the samples of an evaluation: of all, and by set of those kept."""

    clusters: list[Hashable] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    kept: list[bool] = field(default_factory=list)
    cut: list[bool] = field(default_factory=list)
    flips: dict[str, list[bool]] = field(default_factory=dict)
    sizes: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Sample:
    """An image whose object has a place in the picture that the model gets: its questions and its tokens' regions."""

    pair: Pair
    which: Which
    questions: dict[str, Question]
    regions: torch.Tensor

    @property
    def encoded(self) -> Encoded:
        """One of its prompts."""
        return next(iter(self.questions.values())).encoded


_Asked = Callable[[VLM, Pair, Which, ImageLike, str], Question]


def _samples(
    vlm: VLM, pairs: Sequence[Pair], asked: _Asked, evaluations: Sequence[str], places: Places
) -> Iterator[_Sample]:
    for pair, which in boxed_images(pairs):
        if not pair.label:
            continue
        questions = {kind: asked(vlm, pair, which, pair.path(which), kind) for kind in evaluations}
        sample = _Sample(pair, which, questions, places.of(next(iter(questions.values())).encoded))
        if object_tokens(sample.regions, pair.boxes[which]).any():  # not in a part that the processor cuts off
            yield sample


def _answers(vlm: VLM, asked: Sequence[Mapping[str, Question]]) -> list[dict[str, Reply]]:
    """The plain model's answers to each sample's questions."""
    given = iter(replies_of(vlm, [question for questions in asked for question in questions.values()]))
    return [{kind: next(given) for kind in questions} for questions in asked]


def _needed(
    vlm: VLM, samples: Sequence[_Sample], plain: Sequence[Mapping[str, Reply]], asked: _Asked | None
) -> list[list[str]]:
    """The evaluations that each sample is kept for: answered rightly, and (with `asked`) wrongly where it is noise."""
    right = [[kind for kind, answer in answers.items() if answer.right] for answers in plain]
    if asked is None:
        return right
    hidden = [
        {kind: asked(vlm, sample.pair, sample.which, noised(sample.pair, sample.which), kind) for kind in kinds}
        for sample, kinds in zip(samples, right, strict=True)
    ]
    return [[kind for kind, answer in answers.items() if not answer.right] for answers in _answers(vlm, hidden)]


def yes_token(vlm: VLM, polled: Reply) -> int:
    """The likeliest of the tokens that "Yes" begins with, by the reply to a polling question."""
    return max(first_tokens(vlm, YES), key=lambda token: float(polled.probabilities[token]))


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


def check(
    vlm: VLM,
    *,
    evaluations: Sequence[str] = EVALUATIONS,
    gradient_shares: Sequence[float] = GRADIENT_SHARES,
    gradient_steps: int = STEPS,
    random_shares: Sequence[float] = RANDOM_SHARES,
) -> None:
    """Raises InputError for unknown evaluations, or none, shares outside of 0 .. 1, or no steps."""
    if not evaluations:
        raise InputError(f"evaluations names nothing; choose from {', '.join(EVALUATIONS)}.")
    if unknown := [name for name in evaluations if name not in EVALUATIONS]:
        raise InputError(f"evaluations={unknown} are unknown; choose from {', '.join(EVALUATIONS)}.")
    if outside := [share for share in (*gradient_shares, *random_shares) if not 0 < share <= 1]:
        raise InputError(f"Sizes of sets are shares of the image's tokens, above 0 and at most 1; got {outside}.")
    if gradient_steps < 1:
        raise InputError(f"gradient_steps={gradient_steps}: give 1 or more steps of integrated gradients.")


SPEC = Metric(
    function=token_ablation,
    check=check,
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
