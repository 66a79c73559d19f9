"""Weights in 4 or 8 bits, as QLoRA has them: the decoder layers' matrices, and nothing else.

Vision tower, projector and output head stay in 16 bits: they hold few of the weights, and their rounding costs most.
4 bits are NF4 with double quantization (Dettmers et al., QLoRA, 2023, sections 3.1 and 3.2).
"""

import inspect
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedConfig

from vfl.errors import InputError
from vfl.models.discover import discover


def quantization(choice: str | dict[str, Any], auto_class: Any, config: PreTrainedConfig, dtype: torch.dtype) -> Any:
    """The BitsAndBytesConfig for a model that is not read yet.

    Args:
        choice: "4bit", "8bit", or fields of BitsAndBytesConfig; what they leave open is as for "4bit", or for "8bit"
            where they say load_in_8bit.
        auto_class: the class that makes a model of `config`.
        dtype: in which a layer computes, where the fields don't say.

    Raises:
        InputError: for a field that BitsAndBytesConfig has not, a value that it refuses, or without bitsandbytes.
    """
    fields = dict(choice) if isinstance(choice, dict) else {f"load_in_{choice}": True}
    known = [name for name in inspect.signature(BitsAndBytesConfig).parameters if name != "kwargs"]
    if unknown := [name for name in fields if name not in known]:
        raise InputError(f"quantize names {', '.join(unknown)}; BitsAndBytesConfig has {', '.join(known)}.")
    defaults: dict[str, Any] = {"llm_int8_skip_modules": outside_the_layers(auto_class, config)}
    if not fields.get("load_in_8bit"):
        defaults |= {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": dtype,
        }
    if find_spec("bitsandbytes") is None:
        raise InputError("quantize needs bitsandbytes, which is not installed: pip install 'vfl[quantized]'")
    try:
        return BitsAndBytesConfig(**(defaults | fields))
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"quantize: {fields} was refused by BitsAndBytesConfig: {error}") from error


def compute_as_asked(model: nn.Module) -> None:
    """Keep bitsandbytes on processors with AVX512-BF16 to the type that a layer in 4 bits was asked to compute in.

    There it would pack weights in the first pass in evaluation and compute in bfloat16 from then on, whatever the type,
    and with an error where the block size does not divide a row.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def outside_the_layers(auto_class: Any, config: PreTrainedConfig) -> list[str]:
    """Names of the largest modules that hold Linear modules and are no part of a decoder layer."""
    with torch.device("meta"):
        model = auto_class.from_config(config)
    path = f"{discover(model).decoder_name}.layers"
    names = []

    def visit(module: nn.Module, name: str) -> None:
        if name == path:
            return
        if path.startswith(f"{name}.") or not name:
            for child_name, child in module.named_children():
                visit(child, f"{name}.{child_name}" if name else child_name)
        elif any(isinstance(part, nn.Linear) for part in module.modules()):
            names.append(name)

    visit(model, "")
    return names
