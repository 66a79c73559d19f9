"""A PEFT `LoraConfig` for chosen decoder layers, every adapted module under its full name.

Full names, because PEFT's own `layers_to_transform` also reaches layers of the same number in the vision tower, and
because serving engines take them literally.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from peft import LoraConfig, LoraModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import get_pattern_key
from torch import nn
from transformers import PreTrainedModel

from vfl.errors import InputError
from vfl.models.discover import discover
from vfl.train.towers import ATTENTION_AND_MLP, named_so, target_names, tower_of

logger = logging.getLogger(__name__)

# The recipe of the paper (arXiv 2509.24791).
DEFAULTS: dict[str, Any] = {"r": 64, "lora_alpha": 64, "lora_dropout": 0.05, "target_modules": [*ATTENTION_AND_MLP]}
_OURS = ("layers_to_transform", "layers_pattern", "layer_replication")
# Set by PEFT itself when it saves or loads.
_RECORDS = ("peft_type", "auto_mapping", "peft_version", "inference_mode")
# Starting values that plain PEFT does not find again when it loads the adapter, or cannot make without data.
_NOT_AGAIN = {
    "pissa_niter": "draws a random decomposition, so the base's remainder differs at every load: use pissa",
    "corda": "changes the base's weights by data that is not saved with the adapter: use pissa or olora",
    "lora_ga": "changes the base's weights by gradients that are not saved with the adapter: use pissa or olora",
    "eva": "needs a pass over the data before training, which is not made here: use true or pissa",
}


def build_lora(
    model: PreTrainedModel,
    layers: Sequence[int],
    options: Mapping[str, Any] | None = None,
    also: Sequence[str] = (),
    match: bool = False,
) -> LoraConfig:
    """The LoRA configuration of one arm.

    Args:
        model: the base model, on any device, "meta" included; it is not changed.
        layers: decoder layers, from 0.
        options: fields of `LoraConfig`, verbatim, over the paper's defaults (alpha is r where only r is given);
            `target_modules` and `target_parameters` are names inside a layer ("q_proj"), or "all-linear".
        also: "vision" and "projector" adapt these too.
        match: scale the rank, and alpha with it, so that the arm has as many trainable parameters as all layers would
            have with the rank given.

    Raises:
        InputError: for unknown or conflicting options, and for modules that may not or cannot be adapted.
    """
    given = dict(options or {})
    _check_options(given)
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise InputError("The model has an adapter on it already. Build the configuration on the plain base model.")
    wanted = DEFAULTS | given
    if "r" in given and "lora_alpha" not in given:
        wanted["lora_alpha"] = given["r"]  # the paper's ratio
    config = _config(wanted | _names(model, layers, wanted, also))
    _check_patterns(config)
    _check_saved_modules(model, config, also)
    if not match:
        return config
    everything = range(len(discover(model).layers))
    full = config if list(layers) == list(everything) else _config(wanted | _names(model, everything, wanted, also))
    return _matched(model, config, full)


def count_parameters(model: PreTrainedModel, config: LoraConfig) -> int:
    """Trainable parameters that `config` adds to `model`: PEFT's own, counted on empty modules of the same shapes."""
    names = _as_list(config.target_modules)
    stand_in = nn.Module()
    for name in names:
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        empty = nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        _place(stand_in, name, empty)
    for name in _as_list(config.target_parameters):
        module, _, last = name.rpartition(".")
        shape = model.get_parameter(name).shape
        _place(stand_in, module, nn.Module()).register_parameter(last, nn.Parameter(torch.empty(shape, device="meta")))
    # Starting values can freeze a factor (MiCA), so they stay; LoftQ alone needs real weights, and freezes nothing.
    start = False if config.init_lora_weights == "loftq" else config.init_lora_weights
    plain = replace(
        config, init_lora_weights=start, loftq_config={}, modules_to_save=None, trainable_token_indices=None
    )
    with torch.device("meta"):
        adapted = LoraModel(stand_in, plain, "default")
    count = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    for name, module in model.named_modules():
        if any(named_so(name, saved) for saved in _as_list(config.modules_to_save)):
            count += sum(p.numel() for p in module.parameters())
    return count


def scale(config: LoraConfig) -> float:
    """What the product of the two factors is multiplied with: alpha / r, or alpha / sqrt(r) for rsLoRA."""
    return float(config.lora_alpha / (math.sqrt(config.r) if config.use_rslora else config.r))


def _check_options(given: Mapping[str, Any]) -> None:
    if taken := [name for name in _OURS if given.get(name) is not None]:
        raise InputError(
            f"lora.{taken[0]} conflicts with `layers`, which chooses the layers here (PEFT's own choice would also "
            "reach the vision tower's layers of these numbers). Leave it out and write the layers under `layers`."
        )
    known = [field.name for field in fields(LoraConfig) if field.init and field.name not in (*_OURS, *_RECORDS)]
    if unknown := [name for name in given if name not in known]:
        raise InputError(f"lora.{unknown[0]} is no field of PEFT's LoraConfig; known are {', '.join(sorted(known))}.")
    start = str(given.get("init_lora_weights"))
    for name, reason in _NOT_AGAIN.items():
        if start.startswith(name):
            raise InputError(f"lora.init_lora_weights {start!r} {reason}.")
    if given.get("bias") == "all":
        raise InputError("lora.bias 'all' trains every bias, the vision tower's included. Use none or lora_only.")


def _names(
    model: PreTrainedModel, layers: Sequence[int], wanted: Mapping[str, Any], also: Sequence[str]
) -> dict[str, Any]:
    """Full names in place of the short ones."""
    found: dict[str, Any] = {"target_modules": target_names(model, layers, wanted["target_modules"], also)}
    if wanted.get("target_parameters"):
        if wanted["lora_dropout"]:
            raise InputError(
                f"lora.target_parameters allow no dropout in PEFT, here it is {wanted['lora_dropout']}: add "
                "lora_dropout: 0."
            )
        found["target_parameters"] = _parameter_names(model, layers, wanted["target_parameters"])
    excluded = wanted.get("exclude_modules")
    if excluded:
        if isinstance(excluded, str):
            raise InputError(
                f"lora.exclude_modules is {excluded!r}; expected a list of module names, such as [o_proj]."
            )
        kept = [name for name in found["target_modules"] if not any(named_so(name, one) for one in excluded)]
        if not kept:
            raise InputError(f"lora.exclude_modules {list(excluded)} leaves no module to adapt.")
        # Excluded here and once: a saved pattern would have to be understood by everything that loads the adapter.
        found |= {"target_modules": kept, "exclude_modules": None}
    return found


def _parameter_names(model: PreTrainedModel, layers: Sequence[int], short_names: Sequence[str]) -> list[str]:
    parts = discover(model)
    found = []
    for short in short_names:
        names = [
            f"{parts.decoder_name}.layers.{layer}.{name}"
            for layer in layers
            for name, _ in parts.layers[layer].named_parameters()
            if named_so(name, short)
        ]
        if not names:
            known = ", ".join(name for name, p in parts.layers[layers[0]].named_parameters() if p.dim() > 1)
            raise InputError(
                f"lora.target_parameters: no layer has a parameter {short!r}; layer {layers[0]} has {known}."
            )
        found += names
    return found


def _config(values: Mapping[str, Any]) -> LoraConfig:
    try:
        config = LoraConfig(**values)
    except (TypeError, ValueError, ImportError) as error:
        raise InputError(f"PEFT refuses these lora settings: {' '.join(str(error).split())}") from error
    if not isinstance(config.r, int) or config.r < 1:
        raise InputError(f"lora.r is {config.r!r}; expected a whole number from 1 on.")
    return config


def _check_patterns(config: LoraConfig) -> None:
    """A pattern that fits no module would be ignored without a word."""
    names = [*_as_list(config.target_modules), *_as_list(config.target_parameters)]
    for field in ("rank_pattern", "alpha_pattern"):
        patterns = getattr(config, field)
        fitting = {get_pattern_key(patterns, name) for name in names}
        if idle := [pattern for pattern in patterns if pattern not in fitting]:
            raise InputError(f"lora.{field} has {idle[0]!r}, which fits none of the {len(names)} adapted modules.")


def _check_saved_modules(model: PreTrainedModel, config: LoraConfig, also: Sequence[str]) -> None:
    """Modules that are trained whole may not be what adapters may not touch."""
    for saved in _as_list(config.modules_to_save):
        names = [name for name, _ in model.named_modules() if named_so(name, saved)]
        if not names:
            raise InputError(f"lora.modules_to_save names {saved!r}, and {type(model).__name__} has no such module.")
        if any(model.get_submodule(name) is discover(model).head for name in names):
            raise InputError("lora.modules_to_save names lm_head. A trained output head is refused: leave it out.")
        for name, tower in tower_of(model, names).items():
            if tower in ("vision", "projector") and tower not in also:
                raise InputError(
                    f"lora.modules_to_save {saved!r} also reaches {name} in the {tower}. Name the module in full, or "
                    f"ask for it with also_adapt: [{tower}]."
                )


def _matched(model: PreTrainedModel, config: LoraConfig, full: LoraConfig) -> LoraConfig:
    """`config` with the rank whose count comes closest to that of `full`, at the same scale.

    The count is a * r + b (b: what has no rank, such as DoRA's magnitudes).
    """
    if config.rank_pattern or config.alpha_pattern:
        raise InputError(
            "match: parameters scales one rank for all modules, but lora.rank_pattern or alpha_pattern sets them one "
            "by one. Leave out either."
        )
    target = count_parameters(model, full)
    now = count_parameters(model, config)
    slope = count_parameters(model, replace(config, r=config.r + 1)) - now
    rank = max(1, config.r + round((target - now) / slope))
    alpha = scale(config) * (math.sqrt(rank) if config.use_rslora else rank)
    matched = replace(config, r=rank, lora_alpha=int(alpha) if alpha == int(alpha) else alpha)
    logger.info(
        "match: parameters: rank %d -> %d, %s trainable parameters (all layers at rank %d: %s)",
        config.r,
        rank,
        f"{count_parameters(model, matched):,}",
        config.r,
        f"{target:,}",
    )
    return matched


def _as_list(names: Any) -> list[str]:
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
