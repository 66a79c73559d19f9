"""The device of a process that was started beside others."""

import os
from typing import TypeVar

import torch

from vfl.errors import InputError
from vfl.loading.config import ModelConfig

C = TypeVar("C", bound=ModelConfig)


def on_own_device(config: C) -> C:
    """Under a launcher, the GPU of this process, unless devices are named.

    Raises:
        InputError: for `device_map` with several processes on one machine.
    """
    local = os.environ.get("LOCAL_RANK")
    if local is None or config.device is not None or not torch.cuda.is_available():
        return config
    if config.device_map is not None and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        raise InputError("device_map spreads one model over all devices; start one process a machine, or leave it out.")
    return config.model_copy(update={"device": f"cuda:{int(local) % torch.cuda.device_count()}"})
