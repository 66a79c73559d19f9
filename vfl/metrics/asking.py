"""One question under an edit: is the answer right, with which token does it begin, and how likely was another one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from vfl.engine.plan import Plan
from vfl.engine.streams import VisionStream
from vfl.engine.sweep import sweep
from vfl.errors import InputError
from vfl.locating.ask import MAX_NEW_TOKENS, question_of, read_answer
from vfl.metrics.answering import IMAGES
from vfl.metrics.objects import noised
from vfl.models.encode import Encoded, ImageLike
from vfl.models.vlm import VLM
from vfl.probes.pair import Pair, Which


@dataclass(frozen=True)
class Question:
    """A prompt, how its answer is judged, and how many tokens the answer may have."""

    encoded: Encoded
    right: Callable[[str], bool]
    limit: int


@dataclass(frozen=True)
class Reply:
    """The greedy answer: its text, whether it is right, its first token, and (vocabulary,) probabilities of that."""

    text: str
    right: bool
    token: int
    probabilities: torch.Tensor


def question_on(vlm: VLM, pair: Pair, which: Which, image: ImageLike | None = None) -> Question:
    """A pair's own question on one of its images, or on another image in that one's place."""
    encoded = vlm.ask(question_of(vlm, pair), pair.path(which) if image is None else image)

    def right(text: str) -> bool:
        return bool(text) and pair.correct(read_answer(vlm, pair, text, encoded), which)

    return Question(encoded, right, MAX_NEW_TOKENS[pair.match])


def reply(vlm: VLM, question: Question, own: VisionStream | None = None) -> Reply:
    """Ask; `own` is the prompt's stream, prefilled plainly or under an edit."""
    found = sweep(vlm, question.encoded, [Plan.own()], max_new_tokens=question.limit, own=own)
    text = found.texts[0]
    logits = found.logits[0]
    return Reply(text, question.right(text), int(logits.argmax()), logits.double().softmax(-1))


def boxed_images(pairs: Sequence[Pair]) -> Iterator[tuple[Pair, Which]]:
    """Target and source images that have a box."""
    for pair in pairs:
        for which in IMAGES:
            if pair.boxes.get(which):
                yield pair, which


def needs_object(vlm: VLM, pair: Pair, which: Which, asked: Callable[[VLM, Pair, Which, ImageLike], Question]) -> bool:
    """The filter of Neo et al.: whether the answer is wrong once the object's region is noise."""
    return not reply(vlm, asked(vlm, pair, which, noised(pair, which))).right


def check_pairs(pairs: Sequence[Pair], metric: str) -> None:
    """Raises InputError where there is nothing to measure on."""
    if not pairs:
        raise InputError(f"The metric {metric} was asked for without probe pairs. Give at least one.")
