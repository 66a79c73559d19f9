"""Conversations with their answers, as one batch for teacher forcing: training and scoring read the same tokens.

Shapes: B rows, T tokens of the longest row; rows are padded on the right.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import torch

from vfl.errors import InputError
from vfl.models.encode import Message
from vfl.models.families import Family
from vfl.models.turns import Segment, cut_bare, cut_turns


@dataclass(frozen=True)
class Transcript:
    """One conversation in tokens.

    Attributes:
        ids: all tokens, image placeholders expanded.
        answers: for each token, whether it is part of an answer (its end token included).
        kinds: the processor's per-token inputs, such as token_type_ids.
    """

    ids: list[int] = field(default_factory=list)
    answers: list[bool] = field(default_factory=list)
    kinds: dict[str, list[int]] = field(default_factory=dict)

    def add(self, ids: Sequence[int], kinds: dict[str, list[int]], *, answer: bool) -> None:
        """Append tokens."""
        self.ids.extend(ids)
        self.answers.extend([answer] * len(ids))
        for name, values in self.kinds.items():
            values.extend(kinds[name])


@dataclass(frozen=True)
class ConversationBatch:
    """Rows ready for the model.

    Attributes:
        inputs: input_ids and attention_mask (B, T), per-token inputs (B, T), and pixel inputs as the processor lays
            them out.
        answers: (B, T) bool, the tokens that answers consist of.
    """

    inputs: dict[str, torch.Tensor]
    answers: torch.Tensor

    @property
    def lengths(self) -> torch.Tensor:
        """(B,) tokens a row."""
        return self.inputs["attention_mask"].sum(1)


class ConversationEncoder:
    """Encodes conversations for one model's processor.

    Args:
        processor: tokenizer and image processor.
        family: the model's family.
        image_token_id: the placeholder whose positions hold vision tokens.
        end_ids: tokens that end a generated answer.
        template: replaces the processor's chat template.
        dtype: of floating-point pixel inputs.
    """

    def __init__(
        self,
        processor: Any,
        family: Family,
        image_token_id: int,
        end_ids: set[int],
        template: str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if family.modality != "image":
            raise InputError(f"{family.name} hears {family.modality}: it can be measured, not trained or scored with.")
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.family = family
        self.image_token_id = image_token_id
        self.end_ids = end_ids
        self.template = template
        self.dtype = dtype
        # What the tokenizer puts in front of a prompt; processors are called without, so that later turns get none.
        self._start = self.tokenizer("")["input_ids"]
        # Prompt parts have kind 0 in all of these; PaliGemma reads its answers as kind 1, causally.
        self._kinds = [name for name in processor.model_input_names if name.endswith("token_type_ids")]
        pad = self.tokenizer.pad_token_id
        self.pad = self.tokenizer.eos_token_id if pad is None else pad

    def encode(
        self, conversations: Sequence[Sequence[Message]], prompt_turns: Sequence[int] | None = None
    ) -> ConversationBatch:
        """One batch, images in place (PIL) in every conversation.

        Args:
            conversations: B of them.
            prompt_turns: for each, how many first turns are given, answers among them included; default: none.

        Raises:
            InputError: for a conversation without an answer, or a model without a chat template.
        """
        turns_of_prompts = prompt_turns or [0] * len(conversations)
        cut = [self.cut(messages, turns) for messages, turns in zip(conversations, turns_of_prompts, strict=True)]
        shown = [segment for segments in cut for segment in segments if segment.images]
        processed, pixels = self._process(shown)
        transcripts = [self._transcribe(segments, processed) for segments in cut]
        return self._collate(transcripts, pixels)

    def fingerprint(self) -> str:
        """Tells whether another encoder gives the same tokens: a hash of all settings of processor and tokenizer."""
        tokenizer = json.loads(self.tokenizer.backend_tokenizer.to_str())
        for state in ("padding", "truncation"):  # of the last call
            tokenizer.pop(state)
        facts = [
            self.processor.to_dict(),
            self.processor.image_processor.to_dict(),
            tokenizer,
            self.template or self.processor.chat_template,
            [self.family.name, self.image_token_id, sorted(self.end_ids), self._start, self._kinds],
        ]
        return sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()

    def cut(self, messages: Sequence[Message], prompt_turns: int = 0) -> list[Segment]:
        """The conversation as prompt and answer segments; see `vfl.models.turns`."""
        if self.template is not None or self.processor.chat_template is not None:
            segments = cut_turns(self.processor, messages, self.template, prompt_turns)
            if self.family.prefix_lm and sum(segment.answer for segment in segments) > 1:
                raise InputError(
                    f"{self.family.name} takes one question and one answer a row: its prompt attends to itself in both "
                    "directions, and a second question would see the first answer differently than at inference."
                )
            return segments
        if self.family.bare_prompt:
            return cut_bare(messages, self.tokenizer.convert_ids_to_tokens(self.image_token_id))
        raise InputError(
            "The processor has no chat template, so the prompt format is unknown. Give one with chat_template."
        )

    def _process(self, shown: list[Segment]) -> tuple[dict[int, dict[str, list[int]]], dict[str, torch.Tensor]]:
        """Tokens of each segment with images, by the segment's id(), and the pixel inputs of all in order."""
        if not shown:
            return {}, {}
        batch = self.processor(
            text=[segment.text for segment in shown],
            images=[list(segment.images) for segment in shown],
            add_special_tokens=False,
            padding=True,
            padding_side="right",
            return_tensors="pt",
        )
        shape = batch["input_ids"].shape
        tokens: dict[int, dict[str, list[int]]] = {}
        lengths = batch["attention_mask"].sum(1).tolist()
        names = ["input_ids", *self._kinds]
        for row, segment in enumerate(shown):
            tokens[id(segment)] = {name: batch[name][row, : lengths[row]].tolist() for name in names}
        pixels = {}
        for name, value in batch.items():
            if isinstance(value, torch.Tensor) and (
                value.shape != shape or name not in {*names, "attention_mask", "labels"}
            ):
                pixels[name] = value.to(self.dtype) if value.is_floating_point() else value
        return tokens, pixels

    def _transcribe(self, segments: list[Segment], processed: dict[int, dict[str, list[int]]]) -> Transcript:
        transcript = Transcript(kinds={name: [] for name in self._kinds})
        first = segments[0]
        bos = self.tokenizer.bos_token
        if not (bos and first.text.startswith(bos)):
            self._text(transcript, self._start, answer=False)
        for segment in segments:
            if segment.answer:
                answer, closing = self._answer_ids(segment)
                self._text(transcript, answer, answer=True)
                self._text(transcript, closing, answer=False)
            elif segment.images:
                tokens = processed[id(segment)]
                transcript.add(tokens["input_ids"], tokens, answer=False)
            else:
                ids = self.tokenizer(segment.text, add_special_tokens=False)["input_ids"]
                self._text(transcript, ids, answer=False)
        return transcript

    def _text(self, transcript: Transcript, ids: Sequence[int], *, answer: bool) -> None:
        kind = int(answer and self.family.prefix_lm)
        transcript.add(ids, {name: [kind] * len(ids) for name in self._kinds}, answer=answer)

    def _answer_ids(self, segment: Segment) -> tuple[list[int], list[int]]:
        """Tokens of an answer up to its end token, and those of the turn's closing behind it."""
        ids = self._following(segment.lead, segment.text)
        for place, token in enumerate(ids):
            if token in self.end_ids and place > 0:
                return ids[: place + 1], ids[place + 1 :]
        # The template closes answers with nothing that ends generation (LLaVA-1.5, which was trained with eos there).
        return [*self._following(segment.lead, segment.text.rstrip()), self.tokenizer.eos_token_id], []

    def _following(self, lead: str, text: str) -> list[int]:
        """Tokens of `text` as they come out behind `lead`; alone where a token would straddle the two."""
        both = self.tokenizer(lead + text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = both["input_ids"], both["offset_mapping"]
        if lead and not any(start < len(lead) < end for start, end in offsets):
            return [
                token for token, (start, end) in zip(ids, offsets, strict=True) if start >= len(lead) and end > start
            ]
        alone: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return alone

    def _collate(self, transcripts: list[Transcript], pixels: dict[str, torch.Tensor]) -> ConversationBatch:
        longest = max(len(transcript.ids) for transcript in transcripts)

        def padded(rows: list[list[int]], value: int) -> torch.Tensor:
            return torch.tensor([row + [value] * (longest - len(row)) for row in rows])

        inputs = {
            "input_ids": padded([t.ids for t in transcripts], self.pad),
            "attention_mask": padded([[1] * len(t.ids) for t in transcripts], 0),
            **{name: padded([t.kinds[name] for t in transcripts], 0) for name in self._kinds},
            **pixels,
        }
        answers = padded([[int(a) for a in t.answers] for t in transcripts], 0).bool()
        return ConversationBatch(inputs=inputs, answers=answers)


def encoder_of(vlm: Any) -> ConversationEncoder:
    """The encoder for a loaded `vfl.VLM`."""
    return ConversationEncoder(
        vlm.processor, vlm.family, vlm.parts.image_token_id, vlm.end_ids(), vlm.chat_template, vlm.dtype
    )
