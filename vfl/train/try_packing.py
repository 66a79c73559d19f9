"""Whether packing can be had: what it can't go with, and two rows tried on the model itself.

Transformers keeps packed rows apart in most decoders, not in all: image tokens that see each other both ways (Gemma 3,
PaliGemma) and attention in chunks (Llama 4) go by places in the whole sequence. So it is tried, whatever the family.
"""

from typing import Any

import torch

from vfl.engine.untouched import untouched
from vfl.errors import InputError
from vfl.models.conversation import ConversationEncoder
from vfl.models.vlm import VLM
from vfl.train.packed import Inputs, Layout, Packing, states_of
from vfl.train.recipe import Recipe
from vfl.train.rows.collate import Collator, Row
from vfl.train.rows.packs import PACKS, PackedCollator, Packs
from vfl.train.rows.prepared import Prepared

SEEN = 0.01
"""Of what another answer changes behind it in its own row: rounding at most, where experts are dealt other tokens."""
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 6e-2}
"""Relative difference of the last states of rows packed and apart."""


def check_packing(recipe: Recipe, args: Any, zero_stage: int) -> None:
    """Say what packing can't go with before a model is read.

    Raises:
        InputError: names it, and what to set instead.
    """
    if zero_stage == 3:
        raise InputError(
            "packing is tried on the model before the run, and ZeRO-3 spreads its weights over the ranks: use "
            "deepspeed: zero2, or leave packing out."
        )
    if recipe.attn_implementation == "flash_attention_2" and args.per_device_train_batch_size > 1:
        raise InputError(
            "Flash attention takes packed rows as one sequence: set trainer.per_device_train_batch_size: 1 and raise "
            "data.max_length instead."
        )
    if args.train_sampling_strategy in ("group_by_length", "batch_rebalance"):
        raise InputError(
            f"trainer.train_sampling_strategy {args.train_sampling_strategy} sorts rows by their length, and packs are "
            "about equally long: leave it out, or leave packing out."
        )


def packs_of(recipe: Recipe, vlm: VLM, encoder: ConversationEncoder, prepared: Prepared) -> Packs:
    """The training rows in packs, as far as the model takes them so.

    Raises:
        InputError: as `try_packing`.
    """
    assert recipe.data.max_length is not None
    packs = Packs(prepared.rows, recipe.data.max_length, recipe.seed)
    if len(packs) < len(prepared.rows):
        lengths = [text + image for text, image in zip(prepared.text, prepared.image, strict=True)]
        # The cheapest two, with images where two have some.
        order = sorted(range(len(lengths)), key=lambda row: (not prepared.image[row], lengths[row]))
        try_packing(vlm, encoder, [prepared.rows[row] for row in order[:2]])
    return packs


def try_packing(vlm: VLM, encoder: ConversationEncoder, rows: list[Row]) -> None:
    """Pass two rows through the model in one sequence, and apart.

    Raises:
        InputError: where the second row depends on what the first one says, or either is another than alone.
    """
    packing = Packing(vlm, encoder.pad)
    batch = {name: value.to(vlm.device) for name, value in PackedCollator(Collator(encoder))([rows]).items()}
    layout, present = Layout.of(batch), batch["attention_mask"].bool()
    said = batch.pop("labels") != -100
    said[1:] = False
    otherwise = {**batch, "input_ids": batch["input_ids"].masked_fill(said, encoder.pad)}
    alone = {name: value for name, value in batch.items() if name != PACKS}
    with untouched(vlm):
        apart = _states(vlm, alone)[present]
        packed, changed = (_states(vlm, packing.inputs(each))[layout.places(present)] for each in (batch, otherwise))
    moved = (packed - changed).norm(dim=-1)
    second = present.nonzero()[:, 0] > 0
    different = float((packed - apart).norm() / apart.norm())
    if float(moved[second].max()) > SEEN * float(moved[~second].max()):
        what = "rows in one sequence see each other"
    elif not different <= ROUNDING[apart.dtype]:
        what = f"rows in one sequence are not what they are alone (their last states differ by {different:.2g})"
    else:
        return
    raise InputError(
        f"packing can't be had with {type(vlm.model).__name__}: {what}, since its attention goes by places in the "
        "whole sequence. Leave packing out."
    )


def _states(vlm: VLM, inputs: Inputs) -> torch.Tensor:
    """What the output head reads."""
    with states_of(vlm.parts.norm) as seen:
        vlm.model(**inputs, use_cache=False)
    return seen[0]
