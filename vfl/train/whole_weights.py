"""Weights that are spread over the ranks, put together for a while: whether there is room, and how under ZeRO-3."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config
from trl.models.utils import unwrap_model_for_generation

from vfl.engine.memory import USABLE, free_bytes


def fits_whole(parameters: Iterable[nn.Parameter], device: torch.device) -> bool:
    """Whether every rank has room for what the others hold of these, under FSDP2 or ZeRO-3; every rank must ask."""
    others = sum(_others(parameter) * parameter.element_size() for parameter in parameters)
    room = torch.tensor(int(others < USABLE * free_bytes(device)), device=device)
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


def _others(parameter: Any) -> int:
    """Numbers of it that lie on other ranks alone."""
    if isinstance(parameter, DTensor):
        return parameter.numel() - parameter.to_local().numel()
    if hasattr(parameter, "ds_id"):
        return int(parameter.ds_numel) - int(parameter.ds_tensor.numel())
    return 0
