"""Several questions packed behind one image, at the positions they would have alone.

A row is   prefix | vision tokens | slot 1 | slot 2 | ...   and a slot holds whole questions with their answers, then
padding. Each question sees the prefix, the image and itself (tap.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from transformers import Qwen2_5_VLProcessor

from vfl.probes import micro_limits as style
from vfl.testbeds.micro.questions import FUNCTIONS, Question
from vfl.testbeds.micro.tap import OWN, Layout

PREFIX = "<|im_start|>user\n<|vision_start|>"
NUM_VISION = style.GRID**2
IGNORE = -100


@dataclass
class Rows:
    """A batch of packed rows. Legend: B rows, T tokens of a row, N slots of C tokens."""

    input_ids: torch.Tensor  # (B, T)
    positions: torch.Tensor  # (3, B, T) for multimodal RoPE
    labels: torch.Tensor  # (B, T) the next token where it is part of an answer, else IGNORE
    weights: torch.Tensor  # (B, T) of each label in the loss
    blocks: torch.Tensor  # (B, N C) number of the question, from 1; 0 padding
    functions: torch.Tensor  # (B, N C) index of the question's function, -1 padding
    cells: torch.Tensor  # (B, T) at the word for an object that is asked for: its cell, or ABSENT; else IGNORE
    layout: Layout

    def mask(self) -> torch.Tensor:
        """(B, 1, N C, C) bool, True = attend: inside a slot, causal, and only to the own question."""
        batch, length = self.blocks.shape
        slot = self.layout.slot
        blocks = self.blocks.reshape(batch, length // slot, slot)
        steps = torch.arange(slot, device=blocks.device)
        allowed = (blocks[..., :, None] == blocks[..., None, :]) & (steps[None, :] <= steps[:, None])
        return allowed.reshape(batch, 1, length, slot)

    def to(self, device: torch.device | str) -> "Rows":
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, torch.Tensor)
        }
        return replace(self, **moved)


class Packer:
    """Tokenises questions (once each) and packs them into rows of `slots` slots of `slot` tokens."""

    def __init__(self, processor: Qwen2_5_VLProcessor, slots: int, slot: int) -> None:
        self.processor, self.tokenizer = processor, processor.tokenizer
        prefix = self.tokenizer(PREFIX)["input_ids"]
        start, self.head = len(prefix), len(prefix) + NUM_VISION
        self.slots, self.layout = slots, Layout(start, self.head, slot)
        self.head_ids = prefix + [processor.image_token_id] * NUM_VISION
        rows, columns = np.divmod(np.arange(NUM_VISION), style.GRID)
        image = start + np.stack([np.zeros_like(rows), rows, columns])
        text = np.broadcast_to(np.arange(start), (3, start))
        self.head_positions = np.concatenate([text, image], axis=1)
        self.first_position = start + style.GRID
        self.tokens = cache(self._tokens)

    def single(self) -> "Packer":
        """The packer of rows with one slot: one question an image."""
        return Packer(self.processor, 1, self.layout.slot)

    def _tokens(self, question: Question) -> tuple[list[int], int]:
        """Ids from the end of the image to the end of the answer, and how many of them the answer takes."""
        asked = f"<|vision_end|>{question.text}<|im_end|>\n<|im_start|>assistant\n"
        prompt = self.tokenizer(asked)["input_ids"]
        answer = self.tokenizer(question.answer + "<|im_end|>")["input_ids"]
        return prompt + answer, len(answer)

    def fits(self, slot: Sequence[Question]) -> bool:
        return sum(len(self.tokens(question)[0]) for question in slot) <= self.layout.slot

    def pack(self, asked: Sequence[Sequence[Sequence[Question]]]) -> Rows:
        """`asked` holds, for each image, the questions of each of its slots."""
        batch, slot = len(asked), self.layout.slot
        total = self.head + self.slots * slot
        ids = np.full((batch, total), self.tokenizer.pad_token_id, dtype=np.int64)
        positions = np.zeros((3, batch, total), dtype=np.int64)
        labels = np.full((batch, total), IGNORE, dtype=np.int64)
        weights = np.zeros((batch, total), dtype=np.float32)
        blocks = np.zeros((batch, self.slots * slot), dtype=np.int64)
        functions = np.full((batch, self.slots * slot), -1, dtype=np.int64)
        cells = np.full((batch, total), IGNORE, dtype=np.int64)
        ids[:, : self.head], positions[:, :, : self.head] = self.head_ids, self.head_positions[:, None]
        for row, filled in enumerate(asked):
            number = 0
            for index, questions in enumerate(filled):
                assert self.fits(questions), questions
                at = index * slot
                for question in questions:
                    number += 1
                    tokens, answer = self.tokens(question)
                    end = at + len(tokens)
                    blocks[row, at:end], functions[row, at:end] = number, FUNCTIONS.index(question.function)
                    at, end = at + self.head, end + self.head
                    ids[row, at:end] = tokens
                    positions[:, row, at:end] = self.first_position + np.arange(len(tokens))
                    # The token before an answer token predicts it. Long answers must not drown the one-token ones.
                    labels[row, end - answer - 1 : end - 1] = tokens[-answer:]
                    if question.cell is not None:
                        word = self.tokenizer(f" {question.label}")["input_ids"][0]
                        cells[row, at + tokens.index(word)] = question.cell
                    weights[row, end - answer - 1 : end - 1] = answer**-0.5
                    at = end - self.head
        return Rows(
            input_ids=torch.from_numpy(ids),
            positions=torch.from_numpy(positions),
            labels=torch.from_numpy(labels),
            weights=torch.from_numpy(weights),
            blocks=torch.from_numpy(blocks),
            functions=torch.from_numpy(functions),
            cells=torch.from_numpy(cells),
            layout=self.layout,
        )


def all_own(rows: Rows, num_layers: int) -> torch.Tensor:
    """(L, B, N C) readings with which the tap is the plain model."""
    return torch.full((num_layers, *rows.blocks.shape), OWN, dtype=torch.int8, device=rows.blocks.device)
