"""Planting in a packed row: which picture's vision tokens each question may read at each layer.

Another picture is one that stands in the same row: its vision tokens have the positions of the own ones, so that a mask
alone makes a question read it instead. What is drawn is the embedded model's planting.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface
from transformers.models.llama.modeling_llama import eager_attention_forward

from vfl.testbeds.micro.config import PlantConfig
from vfl.testbeds.micro.planting import draw_question
from vfl.testbeds.micro.questions import FUNCTIONS
from vfl.testbeds.micro.tap import OTHER, OWN
from vfl.testbeds.smol.packing import Rows

NAME = "vfl_smol_planting"


@dataclass
class Readings:
    """What a batch reads. Legend: L layers, B rows, T tokens."""

    layers: torch.Tensor  # (L, B, T) int8 of NONE, OWN, OTHER; OWN outside questions
    other: torch.Tensor  # (B, T) number of the picture that OTHER means; -2 where the row holds no other
    segments: torch.Tensor  # (B, T) as in Rows
    foreign: torch.Tensor  # (B, T, T) bool: a question's token and a vision token, where the reading decides

    def mask(self, layer: int, plain: torch.Tensor) -> torch.Tensor:
        """The additive mask (B, 1, T, T) of a layer, from that of the free reading."""
        reading = self.layers[layer][:, :, None]
        other = (reading == OTHER) & (self.segments[:, None, :] == self.other[:, :, None])
        seen = ((reading == OWN) & (plain[:, 0] == 0)) | other
        closed = torch.finfo(plain.dtype).min
        decided = torch.zeros_like(plain[:, 0]).masked_fill(~seen, closed)
        return torch.where(self.foreign, decided, plain[:, 0])[:, None]

    def to(self, device: torch.device | str) -> "Readings":
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()})


def draw_readings(rng: np.random.Generator, rows: Rows, plant: PlantConfig, num_layers: int) -> Readings:
    """Readings of a packed batch; all tokens of a question read alike."""
    shape = tuple(rows.input_ids.shape)
    layers = np.full((num_layers, *shape), OWN, dtype=np.int8)
    other = np.full(shape, -2, dtype=np.int64)
    numbers, functions, segments = rows.numbers.numpy(), rows.functions.numpy(), rows.segments.numpy()
    for row in range(shape[0]):
        pictures = np.unique(segments[row][segments[row] >= 0])
        for number in np.unique(numbers[row][numbers[row] > 0]):
            tokens = np.flatnonzero(numbers[row] == number)
            function = FUNCTIONS[functions[row, tokens].max()]
            layers[:, row, tokens] = draw_question(rng, function, plant, num_layers)[:, None]
            strangers = pictures[pictures != segments[row, tokens[0]]]
            if len(strangers):
                other[row, tokens] = rng.choice(strangers)
    foreign = (rows.numbers > 0)[:, :, None] & rows.vision[:, None, :]
    return Readings(torch.from_numpy(layers), torch.from_numpy(other), rows.segments, foreign)


def planted_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    readings: Readings | None = None,
    **kwargs: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """transformers' written-out attention, each layer by the mask of its readings."""
    if readings is not None:
        assert attention_mask is not None
        assert isinstance(module.layer_idx, int)
        attention_mask = readings.mask(module.layer_idx, attention_mask)
    return eager_attention_forward(module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(NAME, planted_attention)
