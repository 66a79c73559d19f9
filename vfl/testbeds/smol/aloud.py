"""Counting aloud over the picture: the vision token of a scene's second cube should predict the token "2".

A question has one number to learn from; this gives every solid one, of which the first are easy. Solids are told in the
order of the cells, as the decoder's causal attention meets them.
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from vfl.probes import micro_limits as style
from vfl.testbeds.micro.scenes import Scene
from vfl.testbeds.smol.packing import IGNORE, NUM_VISION, Rows


def digit_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token of each count from 1 on, as answers write it."""
    return [tokenizer(str(count))["input_ids"][0] for count in style.COUNTS]


def counted_aloud(rows: Rows, scenes: Sequence[Scene], digits: Sequence[int]) -> torch.Tensor:
    """(B, T) the digit that each solid's vision token should predict, elsewhere IGNORE."""
    labels = torch.full_like(rows.labels, IGNORE)
    places = rows.vision.nonzero().view(len(scenes), NUM_VISION, 2)
    for scene, tokens in zip(scenes, places.tolist(), strict=True):
        for digit, cell in zip(digits, sorted(cell for cell, _ in scene.solids), strict=False):
            row, token = tokens[cell]
            labels[row, token] = digit
    return labels
