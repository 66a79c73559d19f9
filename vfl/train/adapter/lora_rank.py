"""Trainable parameters of a configuration; the rank at which an arm has as many as full LoRA, and alpha there."""

import logging
import math
from dataclasses import replace
from typing import Any

import torch
from peft import LoraConfig, LoraModel
from peft.utils.other import get_pattern_key
from torch import nn
from transformers import PreTrainedModel

from vfl.errors import InputError
from vfl.train.adapter.towers import named_so

logger = logging.getLogger(__name__)


def count_parameters(model: PreTrainedModel, config: LoraConfig) -> int:
    """Trainable parameters that `config` adds to `model`: PEFT's own, counted on an empty module of each shape."""
    alike: dict[tuple[int, int, bool, int], list[str]] = {}
    for name in as_list(config.target_modules):
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern, name), config.r)
        alike.setdefault((linear.in_features, linear.out_features, linear.bias is not None, rank), []).append(name)
    stand_in = nn.Module()
    for (width, out, bias, _), (name, *_) in alike.items():  # one of each kind
        _place(stand_in, name, nn.Linear(width, out, bias=bias, device="meta"))
    for name in as_list(config.target_parameters):
        module, _, last = name.rpartition(".")
        shape = model.get_parameter(name).shape
        _place(stand_in, module, nn.Module()).register_parameter(last, nn.Parameter(torch.empty(shape, device="meta")))
    # Starting values can freeze a factor (MiCA), so they stay; LoftQ alone needs real weights, and freezes nothing.
    start = False if config.init_lora_weights == "loftq" else config.init_lora_weights
    plain = replace(
        config,
        target_modules=[names[0] for names in alike.values()],
        init_lora_weights=start,
        loftq_config={},
        modules_to_save=None,
        trainable_token_indices=None,
    )
    with torch.device("meta"):
        adapted = LoraModel(stand_in, plain, "default")
    count = _trained(adapted) + sum(
        (len(names) - 1) * _trained(stand_in.get_submodule(names[0])) for names in alike.values()
    )
    for name, module in model.named_modules():
        if any(named_so(name, saved) for saved in as_list(config.modules_to_save)):
            count += sum(p.numel() for p in module.parameters())
    return count


def matched_rank(model: PreTrainedModel, config: LoraConfig, full: LoraConfig) -> LoraConfig:
    """`config` with the rank whose count comes closest to that of `full`, and the alpha at which it learns as fast.

    The count is a * r + b (b: what has no rank, such as DoRA's magnitudes).
    """
    if config.rank_pattern or config.alpha_pattern:
        raise InputError(
            "match_rank scales one rank for all modules, but lora.rank_pattern or alpha_pattern sets them one "
            "by one. Leave out either."
        )
    now = count_parameters(model, config)
    target = now if full is config else count_parameters(model, full)
    slope = count_parameters(model, replace(config, r=config.r + 1)) - now
    rank = max(1, config.r + round((target - now) / slope))
    alpha = alpha_at(rank, config.lora_alpha, config.r, rslora=config.use_rslora)
    matched = replace(config, r=rank, lora_alpha=alpha)
    logger.info(
        "match_rank: rank %d -> %d, %s trainable parameters (all layers at rank %d: %s)",
        config.r,
        rank,
        f"{now + slope * (rank - config.r):,}",
        config.r,
        f"{target:,}",
    )
    return matched


def alpha_at(rank: int, alpha: float, r: float, *, rslora: bool) -> float:
    """The alpha at which LoRA of another rank learns as fast as one of rank `r` and `alpha`, at one learning rate.

    Adam moves each entry of B by about the learning rate, whatever its gradient. For one row all r columns pull one
    way, and the product moves by r times its scale. With the scale alpha / r this is alpha itself, which therefore
    stays (Hu et al. 2021, section 4.1); with rsLoRA's alpha / sqrt(r) it is alpha * sqrt(r).
    """
    return alpha * math.sqrt(r / rank) if rslora else alpha


def _trained(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def as_list(names: Any) -> list[str]:
    return sorted(names or ())


def _place(root: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """Put a module under its dotted name, with empty modules on the way; what stands there already stays."""
    *path, last = name.split(".")
    for step in path:
        if step not in root._modules:
            root.add_module(step, nn.Module())
        root = root.get_submodule(step)
    if last not in root._modules:
        root.add_module(last, module)
    return root.get_submodule(last)
