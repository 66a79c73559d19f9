"""Many short LoRA runs in one process: what is frozen is computed once for all of them.

The vision tower and the embeddings are frozen in every arm, so a row is encoded once and kept as what enters the first
decoder layer. The rest is `vfl train`'s own: the LoRA configuration of `build_lora`, the truncated backward pass, the
mean loss over answer tokens, AdamW with a cosine schedule and its warm-up. A test compares the losses of both.

Legend: B rows, T tokens of the longest row, W the model's width, P rotary positions a token.
"""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torch.nn.utils.rnn import pad_sequence
from transformers import get_scheduler

from vfl.data import Message
from vfl.engine.decoder_inputs import decoder_inputs, on_device
from vfl.models.conversation import encoder_of
from vfl.models.vlm import VLM
from vfl.train.arguments import DEFAULTS
from vfl.train.backward.after_image import Shortened
from vfl.train.backward.truncate import truncate
from vfl.train.layers.freeze import FreezeConfig, Freezing
from vfl.train.layers.learning_rates import own_rates, parameter_groups
from vfl.train.rows.starts import starts_of
from vfl.train.rows.table import conversation

ROWS_AT_ONCE = 32


@dataclass(frozen=True)
class Row:
    """One row as it enters the first decoder layer.

    Attributes:
        states: (T, W) embeddings, those of the image in place.
        positions: (T, P) rotary positions, P of them a token: 3, or 1 where images have no rows and columns.
        labels: (T,) the answer's tokens, -100 elsewhere.
        base: (N, W) what the output head reads of an anchor in the base model, before its N answer tokens; None where
            the answer is learned.
        start: the token after the image, from which on the backward pass may go.
    """

    states: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    base: torch.Tensor | None = None
    start: int = 0


@dataclass(frozen=True)
class Schedule:
    """How long and how fast; the rest is `vfl train`'s defaults."""

    steps: int
    batch: int = 16
    learning_rate: float = 5e-3


@torch.no_grad()
def encode(vlm: VLM, rows: Sequence[dict], *, rejected: bool = False) -> list[Row]:
    """Rows of `vfl.train.rows.table` as they enter the first layer; of preference rows one side."""
    sides = [conversation(row, rejected=rejected) for row in rows]
    return encode_conversations(vlm, sides, [row["prompt"] for row in rows])


@torch.no_grad()
def encode_conversations(
    vlm: VLM, conversations: Sequence[Sequence[Message]], prompts: Sequence[int] | None = None
) -> list[Row]:
    """Conversations with their images open as they enter the first layer.

    Args:
        prompts: for each, how many first messages are given and not learned; default: answers alone are learned.
    """
    encoder = encoder_of(vlm)
    encoded = []
    for start in range(0, len(conversations), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        batch = encoder.encode(conversations[part], None if prompts is None else prompts[part])
        states, positions = entering(vlm, on_device(vlm, batch.inputs))
        ids = batch.inputs["input_ids"]
        labels = ids.masked_fill(~batch.answers, -100).to(vlm.device)
        starts = starts_of(ids, batch.answers, vlm.parts.image_token_id).tolist()
        for n, length in enumerate(batch.lengths.tolist()):
            row = Row(states[n, :length].clone(), positions[:, n, :length].T.clone(), labels[n, :length].clone())
            encoded.append(replace(row, start=starts[n]))
    return encoded


def entering(vlm: VLM, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T, W) states and (P, B, T) positions that the model itself gives to its decoder."""
    given = decoder_inputs(vlm, inputs)
    states, positions = given["inputs_embeds"], given["position_ids"]
    positions = positions[None] if positions.dim() == 2 else positions[-3:]
    return states, positions.expand(-1, len(states), -1)  # one row of positions may stand for all


@torch.no_grad()
def as_anchors(vlm: VLM, rows: Sequence[Row]) -> list[Row]:
    """The same rows, to be answered as the plain model answers them now."""
    held = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        states, labels = reading(vlm, some)
        held += [replace(row, base=state[label >= 0]) for row, state, label in zip(some, states, labels, strict=True)]
    return held


def reading(vlm: VLM, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T - 1, W) what the output head reads, and (B, T - 1) the answer tokens that it is to predict, or -100."""
    states = pad_sequence([row.states for row in rows], batch_first=True)
    positions = pad_sequence([row.positions for row in rows], batch_first=True).permute(2, 0, 1)
    positions = positions[0] if len(positions) == 1 else positions
    labels = pad_sequence([row.labels for row in rows], batch_first=True, padding_value=-100)
    mask = pad_sequence([torch.ones_like(row.labels) for row in rows], batch_first=True)
    hidden = vlm.parts.decoder(
        inputs_embeds=states, position_ids=positions, attention_mask=mask, use_cache=False
    ).last_hidden_state
    return hidden[:, :-1], labels[:, 1:]


def loss_of(vlm: VLM, rows: Sequence[Row], beta: float = 0.0) -> torch.Tensor:
    """Mean loss over the rows' answer tokens, as `vfl train` has it, anchors with their KL term of weight `beta`."""
    hidden, following = reading(vlm, rows)
    answers = following >= 0
    anchors = [row for row in rows if row.base is not None]
    if not anchors:
        return cross_entropy(vlm.parts.head(hidden[answers]).float(), following[answers])
    held = answers & torch.tensor([row.base is not None for row in rows], device=answers.device)[:, None]
    learned = answers & ~held
    loss = cross_entropy(vlm.parts.head(hidden[learned]).float(), following[learned], reduction="sum")
    base = torch.cat([row.base for row in anchors if row.base is not None])
    now, old = (log_softmax(vlm.parts.head(states).float(), dim=-1) for states in (hidden[held], base))
    return (loss + beta * kl_div(now, old, log_target=True, reduction="sum")) / answers.sum()


def batches(count: int, schedule: Schedule, seed: int) -> list[list[int]]:
    """Rows of each step, in the order in which Trainer takes them: a permutation an epoch, drawn from its number."""
    order: list[list[int]] = []
    epoch = 0
    while len(order) < schedule.steps:
        generator = torch.Generator().manual_seed(seed + epoch)
        mixed = torch.randperm(count, generator=generator).tolist()
        order += [mixed[start : start + schedule.batch] for start in range(0, count, schedule.batch)]
        epoch += 1
    return order[: schedule.steps]


@contextmanager
def adapted(vlm: VLM, config: LoraConfig, seed: int) -> Iterator[PeftModel]:
    """The model with a fresh adapter of this seed, and without it afterwards."""
    torch.manual_seed(seed)
    model = get_peft_model(vlm.model, config)
    try:
        yield model
    finally:
        if not sys.is_finalizing():  # when Python ends, PEFT's progress bar waits for a thread that can't start
            model.unload()
            vlm.model.eval()


def fit(
    vlm: VLM,
    model: PeftModel,
    rows: Sequence[Any],
    order: Sequence[Sequence[int]],
    schedule: Schedule,
    multipliers: Mapping[int, float] | None = None,
    freeze: FreezeConfig | None = None,
    loss: Callable[[VLM, Sequence[Any]], torch.Tensor] = loss_of,
    whole_every: int | None = None,
) -> list[float]:
    """Train the adapter; the losses of all steps.

    Args:
        rows: what `loss` takes.
        multipliers: of the learning rate, by decoder layer; 1 where none is given.
        freeze: which layers are trained in the first steps alone.
        loss: of some rows.
        whole_every: one step in so many has a backward pass through all tokens (0: none), the others through those
            after the image, as `backward: after_image` has it; None: all steps.
    """
    shortened = None if whole_every is None else Shortened(vlm.parts.decoder, whole_every)
    rates = own_rates(model, vlm.model, vlm.parts, schedule.learning_rate, multipliers or {}, {})
    groups = parameter_groups(model, rates, schedule.learning_rate, DEFAULTS["weight_decay"])
    freezing = None if freeze is None else Freezing.of(freeze, vlm.num_layers, schedule.steps)
    optimizer = torch.optim.AdamW(groups, lr=schedule.learning_rate)
    warmup = math.ceil(DEFAULTS["warmup_steps"] * schedule.steps)
    scheduler = get_scheduler(DEFAULTS["lr_scheduler_type"], optimizer, warmup, schedule.steps)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    losses = []
    model.train()
    with truncate(model, checkpointing=False):
        for step, chosen in enumerate(order):
            some = [rows[n] for n in chosen]
            with ExitStack() as around:
                if freezing is not None:
                    around.enter_context(freezing.at(step, model))
                if shortened is not None:
                    starts = torch.tensor([row.start for row in some], device=vlm.device)
                    around.enter_context(shortened.at(step, starts))
                of_step = loss(vlm, some)
                of_step.backward()
            torch.nn.utils.clip_grad_norm_([p for p in trained if p.grad is not None], 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(float(of_step.detach()))
    model.eval()
    return losses
