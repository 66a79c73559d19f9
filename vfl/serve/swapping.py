"""The answer with each layer's vision tokens swapped for another image's: what `vfl swap` prints and its page shows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from vfl.engine.image_cache import prefill
from vfl.engine.plan import Plan
from vfl.engine.row_start import Reading
from vfl.engine.sweep import sweep
from vfl.errors import InputError
from vfl.models.vlm import VLM

Mark = Literal["target", "source", "= source", "changed", ""]


@dataclass(frozen=True)
class Swapped:
    """One row: which layers read the source, and what the model says then.

    Attributes:
        layers: "none", "5", "5-7" or "all".
        answer: the greedy answer.
        mark: "" where the answer is the target's, "= source" where it is the source's, "changed" where it is another.
        probability: geometric mean over its tokens of the probability of the target's answer and of the source's; None
            where they were not asked for, or an answer is empty.
    """

    layers: str
    answer: str
    mark: Mark
    probability: tuple[float | None, float | None] = (None, None)


def swap_layers(
    vlm: VLM,
    target: Image.Image | Path,
    source: Image.Image | Path,
    question: str,
    *,
    window: int = 1,
    reading: Reading = "text",
    max_new_tokens: int = 16,
    probabilities: bool = False,
) -> list[Swapped]:
    """A row with no layer swapped, one for each window of layers, and one for the source alone.

    Raises:
        InputError: for a window that is wider than the model, or images whose vision tokens do not fit.
    """
    if window > vlm.num_layers:
        raise InputError(f"--window {window} is wider than the model, which has {vlm.num_layers} layers.")
    asked, other = vlm.ask(question, target), vlm.ask(question, source)
    image_cache = prefill(vlm, other)
    starts = range(vlm.num_layers - window + 1)
    plans = [Plan.own(), *(Plan.window(first, window, image_cache) for first in starts)]
    answers = sweep(vlm, asked, plans, max_new_tokens=max_new_tokens, reading=reading).texts
    alone = sweep(vlm, other, [Plan.own()], max_new_tokens=max_new_tokens, own=image_cache).texts[0]
    scores: list[tuple[float | None, float | None]] = [(None, None)] * (len(plans) + 1)
    if probabilities and answers[0] and alone:
        both = [answers[0], alone]
        scored = sweep(vlm, asked, plans, answers=both, reading=reading).answer_logprobs.tolist()
        scored += sweep(vlm, other, [Plan.own()], answers=both, own=image_cache).answer_logprobs.tolist()
        scores = [(math.exp(first), math.exp(second)) for first, second in scored]
    names = [str(first) if window == 1 else f"{first}-{first + window - 1}" for first in starts]
    marks = _marks(answers, alone)
    rows = zip(["none", *names, "all"], [*answers, alone], marks, scores, strict=True)
    return [Swapped(name, answer, mark, score) for name, answer, mark, score in rows]


def _marks(answers: Sequence[str], alone: str) -> list[Mark]:
    swapped: list[Mark] = [
        "" if answer == answers[0] else "= source" if answer == alone else "changed" for answer in answers[1:]
    ]
    return ["target", *swapped, "source"]
