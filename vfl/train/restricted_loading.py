"""Resuming reads tensors and numbers, never code: pickle runs whatever a file tells it to.

Transformers asks for restricted loading itself; DeepSpeed does not, so PyTorch is told to insist on it for the time of
the run. What the checkpoints of both hold beside tensors is named here, class by class.
"""

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from vfl.errors import InputError

INSIST = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@contextmanager
def restricted_loading(checkpoint: Path | None, *, deepspeed: bool) -> Iterator[None]:
    """Within it, `torch.load` refuses everything but tensors, plain values and the classes named here.

    Args:
        checkpoint: what is resumed from, for the message.
        deepspeed: allow what DeepSpeed's own checkpoints hold.

    Raises:
        InputError: for a file that holds anything else.
    """
    before = os.environ.get(INSIST)
    os.environ[INSIST] = "1"
    try:
        with torch.serialization.safe_globals(_deepspeed_classes() if deepspeed else []):
            yield
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"The checkpoint {checkpoint} holds something other than tensors and numbers, which was not loaded because "
            f"it could run code: {reason} Remove the checkpoint if you don't know where it comes from; --resume then "
            "takes the one before it."
        ) from error
    finally:
        if before is None:
            del os.environ[INSIST]
        else:
            os.environ[INSIST] = before


def _deepspeed_classes() -> list[Any]:
    if find_spec("deepspeed") is None:
        return []
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
