"""One question under several edits at once, a row each: is the answer right, and with which token does it begin.

The vision tower runs once; the decoder takes all rows as one batch of the same prompt, image included, so that edits of
attention (through the tap) or of embeddings act wherever they are made.

Legend: B rows, T tokens of the prompt, V image tokens, d model width.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from vfl.engine.decode import greedy_answers
from vfl.engine.decoder_inputs import decoder_inputs
from vfl.errors import InputError
from vfl.metrics.accuracy import asked_images
from vfl.metrics.objects import noised
from vfl.models.encode import Encoded, ImageLike
from vfl.models.vlm import VLM
from vfl.probes.asking import is_cut, likeliest_letter, question_of, read_answer, token_limit
from vfl.probes.pair import Pair, Which

ROWS = 16  # prompts in a batch


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


def reply(vlm: VLM, question: Question) -> Reply:
    """The plain model's answer."""
    return replies(vlm, question, decoder_inputs(vlm, question.encoded.inputs))[0]


@torch.no_grad()
def replies(vlm: VLM, question: Question, inputs: Mapping[str, Any]) -> list[Reply]:
    """Answers of the B rows of `inputs`, the decoder's arguments for this prompt (`take_rows` repeats it)."""
    cache = DynamicCache()
    output = vlm.parts.decoder(**inputs, past_key_values=cache, use_cache=True).last_hidden_state
    first = head_logits(vlm, output[:, -1])

    def step(chosen: torch.Tensor, number: int) -> torch.Tensor:
        positions = (question.encoded.positions[..., -1:] + number + 1).expand(
            *question.encoded.positions.shape[:-2], len(chosen), 1
        )
        output = vlm.parts.decoder(
            inputs_embeds=vlm.embed(chosen[:, None]), position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        return head_logits(vlm, output[:, -1])

    probabilities = first.double().softmax(-1).cpu()
    if question.letters:
        cut = [False] * len(probabilities)
        texts = [likeliest_letter(vlm, question.letters, likely) for likely in probabilities]
    else:
        answers = greedy_answers(first, step, question.limit, vlm.end_ids())
        cut = [is_cut(ids, question.limit) for ids in answers]
        texts = [vlm.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in answers]
    return [
        Reply(text, question.right(text), int(likely.argmax()), likely, was_cut)
        for text, likely, was_cut in zip(texts, probabilities, cut, strict=True)
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


def needs_object(vlm: VLM, pair: Pair, which: Which, asked: Asked = question_on) -> bool:
    """The filter of Neo et al.: whether the answer is wrong once the object's region is noise."""
    return not reply(vlm, asked(vlm, pair, which, noised(pair, which))).right


def check_pairs(pairs: Sequence[Pair], metric: str) -> None:
    """Raises InputError where there is nothing to measure on."""
    if not pairs:
        raise InputError(f"The metric {metric} was asked for without probe pairs. Give at least one.")
