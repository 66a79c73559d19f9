"""Which floating-point type a device computes in fast: a type that it only emulates is many times slower."""

import logging

import torch

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


def best_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU that has it in hardware, float16 on an older one (T4, V100), float32 elsewhere."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """The type that a setting names; `auto` is `best_dtype`. Warns of bfloat16 where the device only emulates it."""
    dtype = best_dtype(device) if name == "auto" else DTYPES[name]
    if dtype is torch.bfloat16 and not has_bfloat16(device):
        instead = "float16" if device.type == "cuda" else "float32"
        logger.warning(
            "dtype is bfloat16, which this %s only emulates: many times slower than %s. Leave dtype out, or set %s.",
            "GPU" if device.type == "cuda" else "processor", instead, instead,
        )  # fmt: skip
    return dtype


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies matrices in bfloat16 by instructions of its own."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return True  # not known of others: they are left to the user
