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

from vfl.engine.decoder_inputs import decoder_inputs
from vfl.errors import InputError
from vfl.metrics.accuracy import asked_images
from vfl.metrics.objects import noised
from vfl.models.encode import Encoded, ImageLike
from vfl.models.vlm import VLM
from vfl.probes.asking import MAX_NEW_TOKENS, question_of, read_answer
from vfl.probes.pair import Pair, Which

ROWS = 16  # prompts in a batch


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


Asked = Callable[[VLM, Pair, Which, ImageLike], Question]


def question_on(vlm: VLM, pair: Pair, which: Which, image: ImageLike) -> Question:
    """A pair's own question, judged as for `which` of its images; an empty answer is never right."""
    encoded = vlm.ask(question_of(vlm, pair), image)

    def right(text: str) -> bool:
        return bool(text) and pair.correct(read_answer(vlm, pair, text, encoded), which)

    return Question(encoded, right, MAX_NEW_TOKENS[pair.match])


def reply(vlm: VLM, question: Question) -> Reply:
    """The plain model's answer."""
    return replies(vlm, question, decoder_inputs(vlm, question.encoded.inputs))[0]


@torch.no_grad()
def replies(vlm: VLM, question: Question, given: Mapping[str, Any]) -> list[Reply]:
    """Answers of the B rows of `given`, the decoder's arguments for this prompt (`repeated` makes rows)."""
    cache = DynamicCache()
    output = vlm.parts.decoder(**given, past_key_values=cache, use_cache=True).last_hidden_state
    logits = first = head_logits(vlm, output[:, -1])
    ends = vlm.end_ids()
    answers: list[list[int]] = [[] for _ in logits]
    running = [True] * len(answers)
    for step in range(question.limit):
        chosen = logits.argmax(-1)
        for row, token in enumerate(chosen.tolist()):
            running[row] = running[row] and token not in ends
            if running[row]:
                answers[row].append(token)
        if step + 1 == question.limit or not any(running):
            break
        positions = (question.encoded.positions[..., -1:] + step + 1).expand(
            *question.encoded.positions.shape[:-2], len(answers), 1
        )
        output = vlm.parts.decoder(
            inputs_embeds=vlm.embed(chosen[:, None]), position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        logits = head_logits(vlm, output[:, -1])
    probabilities = first.double().softmax(-1).cpu()
    texts = [vlm.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in answers]
    return [
        Reply(text, question.right(text), int(likely.argmax()), likely)
        for text, likely in zip(texts, probabilities, strict=True)
    ]


def repeated(given: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """The decoder's arguments for one prompt, as a batch of `rows` equal ones; masks of all pairs broadcast."""
    many = dict(given)
    many["inputs_embeds"] = given["inputs_embeds"].repeat(rows, 1, 1)
    for name in ("attention_mask", "visual_pos_masks"):
        value = given.get(name)
        if isinstance(value, torch.Tensor) and value.ndim == 2:
            many[name] = value.repeat(rows, 1)
    if (positions := given.get("position_ids")) is not None:
        many["position_ids"] = positions.expand(*positions.shape[:-2], rows, positions.shape[-1])
    if (features := given.get("deepstack_visual_embeds")) is not None:
        many["deepstack_visual_embeds"] = [layer.repeat(rows, 1) for layer in features]
    return many


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
