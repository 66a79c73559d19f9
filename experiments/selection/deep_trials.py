"""Trials on a model of any architecture: PEFT's adapters on the model's own decoder, as `vfl train` has them.

Slower to start a step than trials.py, which suits small decoders, and with fewer operations for a wide one.
"""

from collections.abc import Sequence
from contextlib import ExitStack

import torch

from experiments.layers.loop import ROWS_AT_ONCE, Row, Schedule, adapted, encode_conversations, fit, reading
from experiments.selection.trials import Settings, all_hit, asked_in_turn, epochs_of
from vfl.data import Message
from vfl.models.vlm import VLM
from vfl.train.adapter.lora import build_lora


class DeepTrials:
    """Runs on one base. Args: the model, settings."""

    def __init__(self, vlm: VLM, settings: Settings | None = None) -> None:
        self.vlm, self.settings = vlm, settings or Settings()
        self._adapter = ExitStack()
        for weight in vlm.model.parameters():
            weight.requires_grad_(False)

    def encode(self, conversations: Sequence[Sequence[Message]]) -> list[Row]:
        """Conversations with their images open, as rows."""
        return encode_conversations(self.vlm, conversations)

    def train(self, rows: Sequence[Row], seed: int, epochs: int | None = None) -> list[float]:
        """A new adapter trained on `rows`, in place of the last; the loss of each step."""
        self._adapter.close()
        settings = self.settings
        order = epochs_of(len(rows), settings.batch, epochs or settings.epochs, seed)
        schedule = Schedule(len(order), settings.batch, settings.learning_rate)
        lora = {"r": settings.rank, "lora_alpha": settings.rank, "lora_dropout": 0.0}
        config = build_lora(self.vlm.model, range(self.vlm.num_layers), lora)
        model = self._adapter.enter_context(adapted(self.vlm, config, seed))
        return fit(self.vlm, model, rows, order, schedule)

    @torch.no_grad()
    def right(self, rows: Sequence[Row]) -> list[bool]:
        """Whether each row's answer is what the model says, token by token."""
        return asked_in_turn(rows, ROWS_AT_ONCE, self._right)

    def _right(self, rows: Sequence[Row]) -> list[bool]:
        hidden, following = reading(self.vlm, rows)
        answers = following >= 0
        return all_hit(self.vlm.parts.head(hidden[answers]).argmax(-1), following[answers], answers.sum(1).tolist())
