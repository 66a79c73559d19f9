"""Weights that are spread over the ranks, put together for a while: whether there is room, and how under ZeRO-3."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config
from trl.models.utils import unwrap_model_for_generation

from vfl.engine.memory import SHARE_FOR_ROWS, free_bytes


def fits_whole(parameters: Iterable[nn.Parameter], device: torch.device) -> bool:
    """Whether every rank has room for these as a whole, beside its own pieces of them, under FSDP2 or ZeRO-3.

    Every rank must ask. Half of the free memory is left for what is done with them.
    """
    whole = sum(_spread(parameter) * parameter.element_size() for parameter in parameters)
    room = torch.tensor(int(whole < SHARE_FOR_ROWS * free_bytes(device)), device=device)
    torch.distributed.all_reduce(room, op=torch.distributed.ReduceOp.MIN)
    return bool(room)


@contextmanager
def whole_under_zero3(trainer: Any) -> Iterator[None]:
    """All weights of a trainer's model on every rank, and its modules free of DeepSpeed's hooks, which spread them."""
    with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator):
        unset_hf_deepspeed_config()  # by it Transformers' generate would wait for the other ranks at every token
        try:
            yield
        finally:
            set_hf_deepspeed_config(trainer.accelerator.state.deepspeed_plugin.hf_ds_config)


def _spread(parameter: Any) -> int:
    """Numbers of it in all, if they lie on several ranks; its own pieces stay where they are."""
    if isinstance(parameter, DTensor):
        return parameter.numel()
    return int(parameter.ds_numel) if hasattr(parameter, "ds_id") else 0
