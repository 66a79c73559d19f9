"""Questions, plain or under edits, as rows of one batch: is the answer right, and with which token does it begin.

The vision tower runs once an image; the decoder takes all rows as one batch of prompts of one length, image included,
so that edits of attention (through the tap) or of embeddings act wherever they are made.

Legend: B rows, T tokens of the prompt, V image tokens, d model width.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from transformers import DynamicCache

from vfl.engine.decode import greedy_answers
from vfl.engine.decoder_inputs import alike_groups, decoder_inputs, joined_inputs
from vfl.engine.last_output import last_output
from vfl.engine.memory import in_parts, prompt_limit
from vfl.errors import InputError
from vfl.metrics.accuracy import asked_images
from vfl.metrics.objects import noised
from vfl.models.encode import Encoded, ImageLike
from vfl.models.vlm import VLM
from vfl.probes.asking import is_cut, likeliest_letter, question_of, read_answer, token_limit
from vfl.probes.pair import Pair, Which

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """A prompt, how its answer is judged, and how many tokens the answer may have.

    Where `letters` are given, the answer is the likeliest of them, and nothing is generated.
    """

    encoded: Encoded
    right: Callable[[str], bool]
    limit: int
    letters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reply:
    """The greedy answer: its text, whether it is right, its first token, and (vocabulary,) probabilities of that.

    `cut` tells that it came to no end within the question's limit.
    """

    text: str
    right: bool
    token: int
    probabilities: torch.Tensor
    cut: bool


Asked = Callable[[VLM, Pair, Which, ImageLike], Question]


def question_on(vlm: VLM, pair: Pair, which: Which, image: ImageLike, prefix: str = "") -> Question:
    """A pair's own question, judged as for `which` of its images; an empty answer is never right.

    `prefix` is the beginning of an answer ("It is a") that the model goes on from; what follows is judged.
    """
    encoded = vlm.ask(question_of(vlm, pair), image)
    if prefix:
        encoded = encoded.continued(vlm.answer_ids(prefix))

    def right(text: str) -> bool:
        return bool(text) and pair.correct(read_answer(vlm, pair, text, encoded), which)

    return Question(encoded, right, token_limit(vlm, pair), tuple(pair.letters) if pair.by_logits else ())


@torch.no_grad()
def prefilled(vlm: VLM, prompts: Sequence[Encoded], end: int) -> DynamicCache:
    """Keys and values of the first `end` tokens of prompts that are alike, a row each, in the plain model."""
    cache = DynamicCache()
    vlm.parts.decoder(**joined_inputs(vlm, prompts, end), past_key_values=cache, use_cache=True)
    return cache


def reply(vlm: VLM, question: Question) -> Reply:
    """The plain model's answer."""
    return replies(vlm, question, decoder_inputs(vlm, question.encoded.inputs))[0]


def replies_of(vlm: VLM, questions: Sequence[Question]) -> list[Reply]:
    """The plain model's answers; questions whose prompts are alike are asked together, as many as fit into memory."""
    judged: dict[int, Reply] = {}

    def ask(part: Sequence[int]) -> list[Reply]:
        asked = [questions[row] for row in part]
        return row_replies(vlm, asked, joined_inputs(vlm, [question.encoded for question in asked]))

    def make(places: list[int]) -> list[Reply]:
        for group in groups_of(vlm, [questions[place] for place in places]):
            rows = [places[at] for at in group]
            first = questions[rows[0]]
            limit = prompt_limit(vlm, first.encoded.length + first.limit)
            judged.update(zip(rows, fitting(vlm, rows, limit, ask), strict=True))
        return [judged[place] for place in places]

    wanted = [(question.encoded, ("reply", question.limit, question.letters)) for question in questions]
    replies = vlm.once(wanted, make)
    return [
        # another question's, whose prompt is the same, is judged by this one's answer
        judged.get(row) or replace(reply, right=question.right(reply.text))
        for row, (question, reply) in enumerate(zip(questions, replies, strict=True))
    ]


def groups_of(vlm: VLM, questions: Sequence[Question]) -> list[list[int]]:
    """Which questions can be rows of one batch: prompts that are alike, and answers of one kind and bound."""
    kinds = [(question.limit, not question.letters) for question in questions]
    return alike_groups(vlm, [question.encoded for question in questions], kinds)


def fitting(vlm: VLM, rows: Sequence[S], limit: int, run: Callable[[Sequence[S]], Sequence[T]]) -> list[T]:
    """Results of rows in parts that fit into memory; what did not fit is not tried again."""
    results, fitted = in_parts(rows, limit, run, "rows")
    if fitted < limit:
        vlm.row_limit = fitted
    return results


def replies(vlm: VLM, question: Question, inputs: Mapping[str, Any]) -> list[Reply]:
    """Answers of the B rows of `inputs`, the decoder's arguments for this prompt (`take_rows` repeats it)."""
    return row_replies(vlm, [question] * len(inputs["inputs_embeds"]), inputs)


@torch.no_grad()
def row_replies(
    vlm: VLM,
    questions: Sequence[Question],
    inputs: Mapping[str, Any],
    past: DynamicCache | None = None,
    *,
    narrows: bool = True,
) -> list[Reply]:
    """Answers of B rows, each to a question of its own.

    Args:
        vlm: the model.
        questions: of each row; one group (`groups_of`).
        inputs: the decoder's arguments for the prompts, or for what of them follows `past`.
        past: keys and values of their first tokens; it is used up.
        narrows: as of `replies_from`.
    """
    cache = DynamicCache() if past is None else past
    return replies_from(vlm, questions, head_logits(vlm, last_output(vlm, inputs, cache)), cache, narrows=narrows)


@torch.no_grad()
def replies_from(
    vlm: VLM,
    questions: Sequence[Question],
    first: torch.Tensor,
    cache: DynamicCache,
    *,
    narrows: bool = True,
    follow: Callable[[list[int]], None] | None = None,
) -> list[Reply]:
    """Answers of B rows whose prompts have run.

    Args:
        vlm: the model.
        questions: of each row; one group (`groups_of`).
        first: (B, vocabulary) logits that predict the answers' first tokens.
        cache: keys and values of the prompts; it is used up.
        narrows: rows whose answers have ended may be left out of the batch; not where an edit holds for rows by place
            and can't follow.
        follow: told the places of the rows that are left, for edits by row.
    """
    positions = torch.cat([question.encoded.positions[..., -1:] for question in questions], dim=-2)

    def step(chosen: torch.Tensor, number: int) -> torch.Tensor:
        one = {"inputs_embeds": vlm.embed(chosen[:, None]), "position_ids": positions + number + 1}
        return head_logits(vlm, last_output(vlm, one, cache))

    def narrow(places: list[int]) -> None:
        nonlocal positions
        positions = positions[..., places, :]
        cache.batch_select_indices(torch.tensor(places))
        if follow is not None:
            follow(places)

    limit, letters = questions[0].limit, questions[0].letters
    probabilities = first.double().softmax(-1).cpu()
    if letters:
        cut = [False] * len(probabilities)
        texts = [
            likeliest_letter(vlm, question.letters, likely)
            for question, likely in zip(questions, probabilities, strict=True)
        ]
    else:
        answers = greedy_answers(first, step, limit, vlm.end_ids(), narrow if narrows else None)
        cut = [is_cut(ids, limit) for ids in answers]
        texts = [vlm.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in answers]
    return [
        Reply(text, question.right(text), int(likely.argmax()), likely, was_cut)
        for question, text, likely, was_cut in zip(questions, texts, probabilities, cut, strict=True)
    ]


def head_logits(vlm: VLM, normalised: torch.Tensor) -> torch.Tensor:
    """(..., d) output of the decoder, after its final norm -> (..., vocabulary) logits."""
    logits: torch.Tensor = vlm.parts.head(normalised)
    cap = vlm.parts.softcap
    return logits if cap is None else cap * torch.tanh(logits / cap)


def boxed_images(pairs: Sequence[Pair]) -> Iterator[tuple[Pair, Which]]:
    """Target and source images that have a box."""
    for pair in pairs:
        for which in asked_images(pair):
            if pair.boxes.get(which):
                yield pair, which


def need_object(vlm: VLM, images: Sequence[tuple[Pair, Which]], asked: Asked = question_on) -> list[bool]:
    """The filter of Neo et al.: whether the answers are wrong once the object's region is noise."""
    answers = replies_of(vlm, [asked(vlm, pair, which, noised(pair, which)) for pair, which in images])
    return [not answer.right for answer in answers]


def check_pairs(pairs: Sequence[Pair], metric: str) -> None:
    """Raises InputError where there is nothing to measure on."""
    if not pairs:
        raise InputError(f"The metric {metric} was asked for without probe pairs. Give at least one.")
