"""Many short training runs in one process: what `vfl train` computes for a subset, without what it costs to start.

Rows are encoded once, the frozen vision tower sees each picture once, and the decoder runs fused (fused.py). A held-out
question counts as right if each token of its answer is the likeliest one, so that greedy decoding would give it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch.nn.functional import cross_entropy
from transformers import get_scheduler

from experiments.selection.fused import FusedLora
from vfl.data import Message
from vfl.engine.decoder_inputs import decoder_inputs, on_device
from vfl.models.conversation import encoder_of
from vfl.models.vlm import VLM

BATCH = 64  # rows that are encoded or asked together


@dataclass(frozen=True)
class Settings:
    """Of a run; the rest is `vfl train`'s: AdamW, cosine with 3 % warm-up, decay 0.1, gradients cut at 1."""

    rank: int = 16
    learning_rate: float = 2e-3
    batch: int = 4
    epochs: int = 1
    decay: float = 0.1
    warmup: float = 0.03


@dataclass(frozen=True)
class Row:
    """A conversation as the decoder takes it: T tokens."""

    embeddings: torch.Tensor  # (T, d)
    cos: torch.Tensor  # (T, D)
    sin: torch.Tensor
    labels: torch.Tensor  # (T,), -100 outside of answers


class Labelled(Protocol):
    """A row of any kind of trials."""

    @property
    def labels(self) -> torch.Tensor:
        """(T,) answer tokens, -100 elsewhere."""


AnyRow = TypeVar("AnyRow", bound=Labelled)


def epochs_of(count: int, size: int, epochs: int, seed: int) -> list[list[int]]:
    """Batches of so many epochs, each a new order of all rows."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(epochs):
        order = torch.randperm(count, generator=generator).tolist()
        batches += [order[start : start + size] for start in range(0, count, size)]
    return batches


def asked_in_turn(rows: Sequence[AnyRow], size: int, right: Callable[[list[AnyRow]], list[bool]]) -> list[bool]:
    """What `right` says of each row, asked `size` at a time, rows of like length together."""
    order = sorted(range(len(rows)), key=lambda n: len(rows[n].labels))
    found = [False] * len(rows)
    for start in range(0, len(order), size):
        part = order[start : start + size]
        for n, hit in zip(part, right([rows[n] for n in part]), strict=True):
            found[n] = hit
    return found


def all_hit(predicted: torch.Tensor, following: torch.Tensor, counts: list[int]) -> list[bool]:
    """Of rows with so many answer tokens each, whether all are the predicted ones. Shapes: (N,), (N,)."""
    return [bool(hits.all()) for hits in (predicted == following).split(counts)]


class Trials:
    """Runs on one base. Args: the model, settings."""

    def __init__(self, vlm: VLM, settings: Settings | None = None) -> None:
        self.vlm, self.settings = vlm, settings or Settings()
        self.encoder = encoder_of(vlm)
        self.lora = FusedLora(vlm, self.settings.rank)
        for weight in vlm.model.parameters():
            weight.requires_grad_(False)

    def encode(self, conversations: Sequence[Sequence[Message]]) -> list[Row]:
        """Conversations with their images open, as rows."""
        rows = []
        for start in range(0, len(conversations), BATCH):
            batch = self.encoder.encode(conversations[start : start + BATCH])
            given = decoder_inputs(self.vlm, on_device(self.vlm, batch.inputs))
            cos, sin = self.lora.rotations(given["position_ids"])
            labels = batch.inputs["input_ids"].masked_fill(~batch.answers, -100).to(self.vlm.device)
            for n, length in enumerate(batch.lengths.tolist()):
                parts = (given["inputs_embeds"][n], cos[n], sin[n], labels[n])
                rows.append(Row(*(part[:length].clone() for part in parts)))
        return rows

    def train(self, rows: Sequence[Row], seed: int, epochs: int | None = None) -> list[float]:
        """A new adapter trained on `rows`; the loss of each step. `epochs` overrides the settings'."""
        self.lora.restart(seed)
        return self.steps(rows, self.order(len(rows), seed, epochs))

    def order(self, count: int, seed: int, epochs: int | None = None) -> list[list[int]]:
        """The batches of all epochs, each a new order of all rows."""
        return epochs_of(count, self.settings.batch, epochs or self.settings.epochs, seed)

    def steps(self, rows: Sequence[Row], batches: Sequence[Sequence[int]]) -> list[float]:
        """Train the present adapter on these batches."""
        settings = self.settings
        optimizer = torch.optim.AdamW(
            self.lora.parameters, lr=settings.learning_rate, weight_decay=settings.decay, fused=True
        )
        warmup = -int(-len(batches) * settings.warmup // 1)
        schedule = get_scheduler("cosine", optimizer, num_warmup_steps=warmup, num_training_steps=len(batches))
        losses = []
        for batch in batches:
            hidden, following = self._forward([rows[n] for n in batch])
            loss = cross_entropy(self.lora.head(hidden), following)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.lora.parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
        return losses

    @torch.no_grad()
    def right(self, rows: Sequence[Row]) -> list[bool]:
        """Whether each row's answer is what the model says, token by token."""
        return asked_in_turn(rows, BATCH, self._right)

    def _right(self, rows: Sequence[Row]) -> list[bool]:
        hidden, following = self._forward(rows)
        counts = [int((row.labels[1:] >= 0).sum()) for row in rows]
        return all_hit(self.lora.head(hidden).argmax(-1), following, counts)

    def _forward(self, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
        """Outputs (N, d) that predict the N answer tokens, and these."""
        pad = torch.nn.utils.rnn.pad_sequence
        embeddings, cos, sin = (
            pad([getattr(row, name) for row in rows], batch_first=True) for name in ("embeddings", "cos", "sin")
        )
        following = pad([row.labels for row in rows], batch_first=True, padding_value=-100)[:, 1:]
        answers = following >= 0
        return self.lora.hidden(embeddings, cos, sin)[:, :-1][answers], following[answers]
