"""The same architecture with weights drawn anew: what a method finds there, it did not find in what was learned."""

import copy
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedModel

from vfl.errors import InputError
from vfl.loading.load import wrap
from vfl.models.vlm import VLM


def untrained(vlm: VLM, seed: int) -> VLM:
    """A model like this one as its class initialises it: equal shapes, the processor and the buffers of this one.

    The given model is not touched, so both are in memory.

    Args:
        vlm: whose configuration is taken.
        seed: of the weights; they are drawn on the CPU, so that every device gets the same.

    Raises:
        InputError: for a quantised model, or one that is spread over devices.
    """
    model = vlm.model
    refuse_unequal(vlm)
    kind: Any = type(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn: PreTrainedModel = kind(copy.deepcopy(model.config))
    drawn = drawn.to(device=vlm.device, dtype=vlm.dtype).eval()
    drawn.set_attn_implementation(model.config.get_text_config(decoder=True)._attn_implementation)
    drawn.generation_config = copy.deepcopy(model.generation_config)
    buffers = dict(model.named_buffers())
    for name, buffer in drawn.named_buffers():
        buffer.data = buffers[name].detach().clone()
    named = f"{vlm.model_id} with random weights"
    anew = wrap(drawn, vlm.processor, model_id=named, chat_template=vlm.chat_template)
    return replace(anew, family=vlm.family)


def refuse_unequal(vlm: VLM) -> None:
    """InputError for a model that weights drawn anew would not be like: quantised, or spread over devices."""
    if getattr(vlm.model, "is_quantized", False) or len({weight.device for weight in vlm.model.parameters()}) > 1:
        raise InputError(
            f"{vlm.model_id} is quantised or spread over several devices, and weights drawn anew would not be. Leave "
            "out --random-weights, or load the model as it is on one device."
        )
