"""Many short LoRA runs in one process: what is frozen is computed once for all of them.

The vision tower and the embeddings are frozen in every arm, so a row is encoded once and kept as what enters the first
decoder layer. The rest is `vfl train`'s own: the LoRA configuration of `build_lora`, the truncated backward pass, the
mean loss over answer tokens, AdamW with a cosine schedule and its warm-up. A test compares the losses of both.

Legend: B rows, T tokens of the longest row, W the model's width.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import get_scheduler

from vfl.models.conversation import encoder_of
from vfl.models.vlm import VLM
from vfl.train.arguments import DEFAULTS
from vfl.train.backward.truncate import truncate
from vfl.train.layers.freeze import FreezeConfig, Freezing
from vfl.train.layers.multipliers import parameter_groups
from vfl.train.rows.table import conversation

ROWS_AT_ONCE = 32


@dataclass(frozen=True)
class Row:
    """One row as it enters the first decoder layer.

    Attributes:
        states: (T, W) embeddings, those of the image in place.
        positions: (T, 3) rotary positions.
        labels: (T,) the answer's tokens, -100 elsewhere.
    """

    states: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Schedule:
    """How long and how fast; the rest is `vfl train`'s defaults."""

    steps: int
    batch: int = 16
    learning_rate: float = 5e-3


@torch.no_grad()
def encode(vlm: VLM, rows: Sequence[dict]) -> list[Row]:
    """Rows of `vfl.train.rows.table` as they enter the first layer."""
    encoder = encoder_of(vlm)
    encoded = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        batch = encoder.encode([conversation(row) for row in some], [row["prompt"] for row in some])
        states, positions = entering(vlm, batch.inputs)
        labels = batch.inputs["input_ids"].masked_fill(~batch.answers, -100)
        for n, length in enumerate(batch.lengths.tolist()):
            encoded.append(
                Row(states[n, :length].clone(), positions[:, n, :length].T.clone(), labels[n, :length].clone())
            )
    return encoded


def entering(vlm: VLM, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T, W) states and (3, B, T) positions that the model itself gives to its decoder."""
    seen: dict[str, torch.Tensor] = {}

    class Stop(Exception):
        pass

    def catch(module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        seen.update(states=kwargs["inputs_embeds"], positions=kwargs["position_ids"])
        raise Stop

    handle = vlm.parts.decoder.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        vlm.model(**inputs)
    except Stop:
        pass
    finally:
        handle.remove()
    return seen["states"], seen["positions"][-3:]


def loss_of(vlm: VLM, rows: Sequence[Row]) -> torch.Tensor:
    """Mean loss over the rows' answer tokens, as `vfl train` has it."""
    states = pad_sequence([row.states for row in rows], batch_first=True)
    positions = pad_sequence([row.positions for row in rows], batch_first=True).permute(2, 0, 1)
    labels = pad_sequence([row.labels for row in rows], batch_first=True, padding_value=-100)
    mask = pad_sequence([torch.ones(len(row.labels), dtype=torch.long) for row in rows], batch_first=True)
    hidden = vlm.parts.decoder(
        inputs_embeds=states, position_ids=positions, attention_mask=mask, use_cache=False
    ).last_hidden_state
    following = labels[:, 1:]
    answers = following >= 0
    return cross_entropy(vlm.parts.head(hidden[:, :-1][answers]).float(), following[answers])


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
        model.unload()
        vlm.model.eval()


def fit(
    vlm: VLM,
    model: PeftModel,
    rows: Sequence[Row],
    order: Sequence[Sequence[int]],
    schedule: Schedule,
    multipliers: Mapping[int, float] | None = None,
    freeze: FreezeConfig | None = None,
) -> list[float]:
    """Train the adapter; the losses of all steps.

    Args:
        multipliers: of the learning rate, by decoder layer; 1 where none is given.
        freeze: which layers are trained in the first steps alone.
    """
    groups = parameter_groups(model, multipliers or {}, schedule.learning_rate, DEFAULTS["weight_decay"])
    freezing = None if freeze is None else Freezing.of(freeze, vlm.num_layers, schedule.steps)
    optimizer = torch.optim.AdamW(groups, lr=schedule.learning_rate)
    warmup = math.ceil(DEFAULTS["warmup_steps"] * schedule.steps)
    scheduler = get_scheduler(DEFAULTS["lr_scheduler_type"], optimizer, warmup, schedule.steps)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    losses = []
    model.train()
    with truncate(model, checkpointing=False):
        for step, chosen in enumerate(order):
            with nullcontext() if freezing is None else freezing.at(step, model):
                loss = loss_of(vlm, [rows[n] for n in chosen])
                loss.backward()
            torch.nn.utils.clip_grad_norm_([p for p in trained if p.grad is not None], 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(float(loss.detach()))
    model.eval()
    return losses
