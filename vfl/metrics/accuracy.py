"""Accuracy of probe pairs along a series of plans: what dropping, masking, late entry and injection have in common.

Every pair is asked on both its images: over the targets alone, a model that says "yes" whatever it sees would be right
about every object. Beside every curve stand the accuracy without an image and the chance level.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vfl.engine.joint_sweep import Swept
from vfl.engine.memory import prompt_limit
from vfl.engine.plan import Plan
from vfl.errors import InputError
from vfl.metrics.prompts import LOT, in_lots
from vfl.metrics.result import (
    Result,
    by_function,
    cluster_of,
    cut_answers,
    mean_curve,
    no_scalar,
    result,
    share_curve,
    share_scalar,
)
from vfl.metrics.swept_rows import swept_rows
from vfl.models.depth import in_proportion
from vfl.models.vlm import VLM
from vfl.probes.asking import Asked, Asker, expected_text, is_cut, likeliest_letter, read_answer, token_limit
from vfl.probes.match import words
from vfl.probes.pair import Pair, Which
from vfl.stats import difference_at_most

IMAGES: tuple[Which, ...] = ("image", "source_image")


def asked_images(pair: Pair) -> list[Which]:
    """The images that a pair is asked on: target and source, or the only one of a data set's question."""
    return [which for which in IMAGES if which in pair.images]


def images_asked(pairs: Iterable[Pair]) -> list[Which]:
    """Which images of the pairs are asked, for the record of the options."""
    there = {which for pair in pairs for which in asked_images(pair)}
    return [which for which in IMAGES if which in there]


def letters_by(pairs: Iterable[Pair]) -> str | None:
    """How the letters of choices are told, for the record of the options; None where no pair has any."""
    ways = {"logits" if pair.by_logits else "text" for pair in pairs if pair.letters}
    return " and ".join(sorted(ways)) or None


TOLERANCE = 0.05
BEYOND = 0.025  # on each side of a 95 % interval
ROUNDING = 1e-9  # of shares that differ by the tolerance itself

# The images of some pairs, asked -> for each the prompt to sweep and its plans, one a point.
PlansOf = Callable[[Sequence[tuple[Pair, Which]], Sequence[Asked]], list[tuple[Asked, list[Plan]]]]


def accuracy_along(
    vlm: VLM,
    pairs: Sequence[Pair],
    at: Sequence[int],
    plans_of: PlansOf,
    *,
    axis: str,
    tolerance: float,
    options: dict[str, Any],
    within: Callable[[int], AbstractContextManager[None]] | None = None,
) -> Result:
    """Ask every pair with each plan of a series.

    Args:
        vlm: the model.
        pairs: probe pairs of any functions.
        at: points of the series, ascending; 0 is the plain model.
        plans_of: for images of pairs and their prompts, the prompts to ask and their plans, one a point.
        axis: name of the points.
        tolerance: how much accuracy may fall to count as tolerated.
        options: what else changes a number.
        within: what the plan of a point runs in, given the point; then each is a sweep of its own. The model without
            the image runs outside.

    Returns:
        For each function f, curves "f/accuracy" (share of answers, Wilson) and "f/logprob" (of the right answer, nats
        per token, bootstrap), both over pairs; scalars "f/accuracy" (at 0), "f/no_image" (the image hidden from the
        text at all layers, positions kept), "f/chance", and "f/tolerated": the last point up to which accuracy stays
        within `tolerance` of the plain model's, with the interval of `tolerated`. "cut" as of `cut_answers`.

    Raises:
        InputError: without pairs.
    """
    if not pairs:
        raise InputError("An accuracy was asked for without probe pairs. Give at least one.")
    asker = Asker(vlm)
    blind = Plan.hide(range(vlm.num_layers))
    scalars: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    cut: dict[str, list[bool]] = {}
    for function, rows in by_function([pair.function for pair in pairs]).items():
        mine = [pairs[row] for row in rows]
        answered: list[tuple[list[bool], list[float], bool]] = []
        clusters = []
        images = [(pair, which) for pair in mine for which in asked_images(pair)]
        size = lot_size(vlm, asker.ask(*images[0]), len(at) + 1)
        for lot in in_lots(images, size):
            clusters += [cluster_of(pair) for pair, _ in lot]
            asked = plans_of(lot, asker.ask_images(lot))
            if within is None:
                answered += _ask(vlm, lot, [(prompt, [*plans, blind]) for prompt, plans in asked])
                continue
            each = []
            for number, point in enumerate(at):
                with within(point):
                    each.append(_ask(vlm, lot, [(prompt, [plans[number]]) for prompt, plans in asked], keeps=False))
            each.append(_ask(vlm, lot, [(prompt, [blind]) for prompt, _ in asked]))
            for of_image in zip(*each, strict=True):
                flags, scores, was_cut = zip(*of_image, strict=True)
                answered.append(([*chain(*flags)], [*chain(*scores)], was_cut[0]))
        correct = np.array([flags for flags, _, _ in answered], dtype=np.float64)
        cut[function] = [was_cut for _, _, was_cut in answered]
        curves[f"{function}/accuracy"] = share_curve(correct[:, :-1], axis=axis, at=at, clusters=clusters)
        logprobs = [scores[:-1] for _, scores, _ in answered]
        curves[f"{function}/logprob"] = mean_curve(logprobs, axis=axis, at=at, clusters=clusters)
        scalars[f"{function}/accuracy"] = share_scalar(correct[:, 0], clusters=clusters)
        scalars[f"{function}/no_image"] = share_scalar(correct[:, -1], clusters=clusters)
        scalars[f"{function}/chance"] = no_scalar(chance(mine), len(answered))
        scalars[f"{function}/tolerated"] = tolerated(correct[:, :-1], list(at), tolerance, clusters)
    settled = {
        **options,
        f"{axis}s": list(at),
        "tolerance": tolerance,
        "images": images_asked(pairs),
        "reading": "text",
        "letters": letters_by(pairs),
    }
    return result(len(pairs), scalars, curves, settled, **cut_answers(cut))


def points(named: Sequence[int] | None, default: Sequence[int], vlm: VLM, what: str) -> list[int]:
    """The points of a series, ascending and with 0.

    Raises:
        InputError: for one outside of 0 .. L.
    """
    chosen = sorted({0, *(default if named is None else named)})
    if outside := [point for point in chosen if not 0 <= point <= vlm.num_layers]:
        raise InputError(f"{what}={outside}: the model has {vlm.num_layers} layers; give 0 to {vlm.num_layers}.")
    return chosen


def eighths(num_layers: int) -> list[int]:
    """The paper's first 0, 4, 8, 12 and 16 of 32 layers, in proportion to another depth."""
    return sorted({in_proportion(layer, num_layers) for layer in range(0, 17, 4)})


def chance(pairs: Sequence[Pair]) -> float:
    """Accuracy of guessing: 1 / choices, half for yes and no, the most frequent number; open answers aren't guessed."""
    levels = []
    for pair in pairs:
        if pair.choices:
            levels.append(1 / len(pair.choices))
        elif pair.match == "yesno":
            levels.append(0.5)
        elif pair.match == "number":
            numbers = Counter(words(a) for p in pairs if p.match == "number" for a in (p.answer, p.source_answer))
            levels.append(max(numbers.values()) / numbers.total())
        else:
            levels.append(0.0)
    return sum(levels) / len(levels)


def lot_size(vlm: VLM, asked: Asked, plans: int) -> int:
    """Images held at a time: each plan may read an image cache of its own, and half of the free memory holds all."""
    return max(1, min(LOT, prompt_limit(vlm, asked.encoded.length) // plans))


def _ask(
    vlm: VLM, images: Sequence[tuple[Pair, Which]], asked: Sequence[tuple[Asked, list[Plan]]], *, keeps: bool = True
) -> list[tuple[list[bool], list[float], bool]]:
    """Right or wrong, and the right answer's log-probability, one each a plan; whether the first plan's was cut.

    `keeps`: the plans are all that is edited, so that a model which keeps its prompts may keep what these answer.
    """
    prompts = []
    for (pair, which), (prompt, plans) in zip(images, asked, strict=True):
        answer = pair.source_answer if which == "source_image" else pair.answer
        expected = expected_text(vlm, pair, answer, prompt.encoded)
        limit = 0 if pair.by_logits else token_limit(vlm, pair)
        try:
            for plan in plans:
                for image_cache in plan.reads.values():
                    if image_cache is not None:
                        image_cache.check_swappable(prompt.encoded)
        except InputError as error:
            raise InputError(f"Pair {pair.id!r}: {error}") from error
        prompts.append(Swept(prompt.encoded, plans, [expected], limit, prompt.image_cache))
    outcomes = []
    for (pair, which), one, rows in zip(images, prompts, swept_rows(vlm, prompts, keeps=keeps), strict=True):
        if pair.by_logits:
            texts, cut = [likeliest_letter(vlm, pair.letters, row.logits) for row in rows], False
        else:
            texts = [read_answer(vlm, pair, row.text, one.encoded) for row in rows]
            cut = is_cut(rows[0].ids, one.max_new_tokens)
        outcomes.append(([pair.correct(text, which) for text in texts], [row.logprob for row in rows], cut))
    return outcomes


def tolerated(
    correct: ArrayLike, at: Sequence[int], tolerance: float, clusters: Sequence[Hashable]
) -> dict[str, float | None]:
    """The last point before accuracy first falls by more than the tolerance, with a 95 % interval.

    The ends are the last point up to which the fall is shown to stay within the tolerance, and the last one before it
    is shown to leave it: paired, by the confidence bounds of `vfl.stats.difference_at_most`. With few samples nothing
    is shown, and the interval is wide.

    Args:
        correct: (N, X), 1 where an answer is right; the first column is the plain model's.
        at: X points, ascending.
        tolerance: how much accuracy may fall.
        clusters: N names of what the samples belong to.
    """
    flags = np.asarray(correct, dtype=np.float64)
    fell = flags[:, :1] - flags
    lost, won = np.maximum(fell, 0), np.maximum(-fell, 0)
    most = difference_at_most(lost, won, clusters, BEYOND)
    least = -difference_at_most(won, lost, clusters, BEYOND)
    fall = fell.mean(0)
    value, low, high = (_last_within(each, at, tolerance) for each in (fall, most, least))
    return {"value": value, "low": low, "high": high, "n": len(flags)}


def _last_within(falls: NDArray[np.float64], at: Sequence[int], tolerance: float) -> float:
    """The last point before a fall first exceeds the tolerance; the plain model's own is none."""
    over = falls > tolerance + ROUNDING
    over[0] = False
    return float(at[int(over.argmax()) - 1] if over.any() else at[-1])
