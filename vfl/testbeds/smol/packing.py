"""Pictures and their questions packed into rows: each question sees its own picture and itself, and nothing else.

A row is  head | question | question | ... | head | question | ...  where a head is the start of the user's turn and the
vision tokens. Positions are those that each question would have alone behind its picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from transformers import SmolVLMProcessor

from vfl.probes import micro_limits as style
from vfl.testbeds.micro.questions import FUNCTIONS, Question
from vfl.testbeds.smol.processor import END, FAKE, GLOBAL, IMAGE, START

IGNORE = -100
NUM_VISION = style.GRID**2


@dataclass
class Rows:
    """A batch of packed rows. Legend: B rows, T tokens."""

    input_ids: torch.Tensor  # (B, T)
    positions: torch.Tensor  # (B, T)
    segments: torch.Tensor  # (B, T) number of the picture in the batch, -1 padding
    numbers: torch.Tensor  # (B, T) number of the question, 0 in heads
    vision: torch.Tensor  # (B, T) bool: the vision tokens, in the order of the pictures
    labels: torch.Tensor  # (B, T) the next token where it is part of an answer, else IGNORE
    weights: torch.Tensor  # (B, T) of each label in the loss
    functions: torch.Tensor  # (B, T) index of the question's function at its labels, else -1
    cells: torch.Tensor  # (B, T) at the word for an object that is asked for: its cell, or ABSENT; else IGNORE

    def mask(self) -> torch.Tensor:
        """(B, 1, T, T) float, 0 where a token attends and the lowest number elsewhere; padding sees itself."""
        same = self.segments[:, :, None] == self.segments[:, None, :]
        seen = (self.numbers[:, None, :] == 0) | (self.numbers[:, :, None] == self.numbers[:, None, :])
        length = self.input_ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=self.input_ids.device).tril()
        allowed = same & seen & causal
        return torch.zeros(allowed.shape, device=causal.device).masked_fill(~allowed, torch.finfo(torch.float32).min)[
            :, None
        ]

    def to(self, device: torch.device | str) -> "Rows":
        moved: dict[str, Any] = {name: value.to(device) for name, value in vars(self).items()}
        return replace(self, **moved)


class Packer:
    """Tokenises questions (once each) and packs pictures with questions into rows of `length` tokens."""

    def __init__(self, processor: SmolVLMProcessor, length: int) -> None:
        self.tokenizer, self.length = processor.tokenizer, length
        before = self.tokenizer(f"{START}user\n{FAKE}{GLOBAL}")["input_ids"]
        image = self.tokenizer.convert_tokens_to_ids(IMAGE)
        self.head = [*before, *[image] * NUM_VISION]
        self.first_vision = len(before)
        self.tokens = cache(self._tokens)

    def _tokens(self, question: Question) -> tuple[list[int], int]:
        """Ids from the end of the image to the end of the answer, and how many of them the answer takes."""
        prompt = self.tokenizer(f"{FAKE}{question.text}{END}\n{START}assistant\n")["input_ids"]
        answer = self.tokenizer(question.answer + END)["input_ids"]
        return prompt + answer, len(answer)

    def size(self, asked: Sequence[Question]) -> int:
        """Tokens of one picture with its questions."""
        return len(self.head) + sum(len(self.tokens(question)[0]) for question in asked)

    def pack(self, rows: Sequence[Sequence[Sequence[Question]]]) -> Rows:
        """`rows` holds, for each row, the questions of each of its pictures; pictures are numbered in this order."""
        shape = (len(rows), self.length)
        ids = np.full(shape, self.tokenizer.pad_token_id, dtype=np.int64)
        positions, numbers = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        segments, functions = np.full(shape, -1, dtype=np.int64), np.full(shape, -1, dtype=np.int64)
        labels, cells = np.full(shape, IGNORE, dtype=np.int64), np.full(shape, IGNORE, dtype=np.int64)
        weights, vision = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=bool)
        picture, number, head = 0, 0, len(self.head)
        for row, pictures in enumerate(rows):
            at = 0
            for asked in pictures:
                ids[row, at : at + head], positions[row, at : at + head] = self.head, np.arange(head)
                vision[row, at + self.first_vision : at + head] = True
                end = at + self.size(asked)
                assert end <= self.length, (end, self.length)
                segments[row, at:end] = picture
                picture, at = picture + 1, at + head
                for question in asked:
                    number += 1
                    tokens, answer = self.tokens(question)
                    end = at + len(tokens)
                    ids[row, at:end], numbers[row, at:end] = tokens, number
                    positions[row, at:end] = head + np.arange(len(tokens))
                    # The token before an answer token predicts it. Long answers must not drown the one-token ones.
                    answered = slice(end - answer - 1, end - 1)
                    labels[row, answered], weights[row, answered] = tokens[-answer:], answer**-0.5
                    functions[row, answered] = FUNCTIONS.index(question.function)
                    if question.cell is not None:
                        word = self.tokenizer(f" {question.label}")["input_ids"][-1]
                        cells[row, at + tokens.index(word)] = question.cell
                    at = end
        arrays = (ids, positions, segments, numbers, vision, labels, weights, functions, cells)
        return Rows(*map(torch.from_numpy, arrays))
