"""The rule `auto`: all layers at a part of the rank, the parameters of few layers spread over all of them.

With a tenth of old rows it came closest to full LoRA of all arms with as many parameters (experiments/layers): few
whole layers, however they are chosen, miss tasks that act elsewhere. It reads no data. Alpha stays full LoRA's:
cut like the rank, it learns a third as fast at the same learning rate.
"""

from collections.abc import Mapping
from typing import Any

from vfl.train.adapter.lora_rank import alpha_at

SHARE = 0.3  # of the rank: what the experiment ran


def thinned(lora: Mapping[str, Any], rank: int, share: float | None) -> dict[str, Any]:
    """LoRA options with `share` of the rank, and the alpha at which they learn as fast at the same learning rate.

    Args:
        lora: a recipe's options.
        rank: where these name none.
        share: of the rank; None is the rule's own.
    """
    whole = int(lora.get("r", rank))
    thin = max(1, round((SHARE if share is None else share) * whole))
    alpha = alpha_at(thin, lora.get("lora_alpha", whole), whole, rslora=bool(lora.get("use_rslora")))
    return {**lora, "r": thin, "lora_alpha": alpha}


def thin_reason(num_layers: int, thin: int, whole: int) -> str:
    """One paragraph: what was chosen, why, and what it costs."""
    return (
        f"All {num_layers} layers at rank {thin} instead of {whole}: {thin / whole:.0%} of full LoRA's parameters. "
        "With old rows beside the new (data.replay) this came closest to full LoRA of all choices with as many "
        "parameters. A step takes as long as full LoRA's, since the backward pass goes through every layer."
    )
