"""A PEFT `LoraConfig` for chosen decoder layers, every adapted module under its full name.

Full names, because PEFT's own `layers_to_transform` also reaches layers of the same number in the vision tower, and
because serving engines take them literally.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import get_pattern_key
from transformers import PreTrainedModel

from vfl.errors import InputError
from vfl.io.did_you_mean import did_you_mean
from vfl.models.discover import Parts, discover
from vfl.train.adapter.lora_rank import as_list, matched_rank
from vfl.train.adapter.towers import ATTENTION_AND_MLP, named_so, target_names, tower_of

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
    match_rank: bool = False,
) -> LoraConfig:
    """The LoRA configuration of one arm.

    Args:
        model: the base model, on any device, "meta" included; it is not changed.
        layers: decoder layers, from 0.
        options: fields of `LoraConfig`, verbatim, over the paper's defaults (alpha is r where only r is given);
            `target_modules` and `target_parameters` are names inside a layer ("q_proj"), or "all-linear".
        also: "vision" and "projector" adapt these too.
        match_rank: scale the rank, at the alpha that learns as fast, so that the arm has as many trainable parameters
            as all layers would have with the rank given.

    Raises:
        InputError: for unknown or conflicting options, and for modules that may not or cannot be adapted.
    """
    written = dict(options or {})
    _check_options(written)
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise InputError("The model has an adapter on it already. Build the configuration on the plain base model.")
    wanted = DEFAULTS | written
    if "r" in written and "lora_alpha" not in written:
        wanted["lora_alpha"] = written["r"]  # the paper's ratio
    parts = discover(model)
    config = _config(wanted | _names(model, parts, layers, wanted, also))
    _check_patterns(config)
    _check_saved_modules(model, parts, config, also)
    if also:
        logger.warning(
            "modules of the %s are adapted, as also_adapt asks: the backward pass then covers all layers, and engines "
            "that serve adapters of the language model alone refuse them",
            " and the ".join(also),
        )
    if not match_rank:
        return config
    everything = range(len(parts.layers))
    if list(layers) == list(everything):
        return matched_rank(model, config, config)
    return matched_rank(model, config, _config(wanted | _names(model, parts, everything, wanted, also)))


def _check_options(written: Mapping[str, Any]) -> None:
    if taken := [name for name in _OURS if written.get(name) is not None]:
        raise InputError(
            f"lora.{taken[0]} conflicts with `layers`, which chooses the layers here (PEFT's own choice would also "
            "reach the vision tower's layers of these numbers). Leave it out and write the layers under `layers`."
        )
    known = [field.name for field in fields(LoraConfig) if field.init and field.name not in (*_OURS, *_RECORDS)]
    if unknown := [name for name in written if name not in known]:
        hint = did_you_mean(unknown[0], known)
        raise InputError(
            f"lora.{unknown[0]} is no field of PEFT's LoraConfig; known are {', '.join(sorted(known))}."
            + (f" {hint[0].upper()}{hint[1:]}" if hint else "")
        )
    start = str(written.get("init_lora_weights"))
    for name, reason in _NOT_AGAIN.items():
        if start.startswith(name):
            raise InputError(f"lora.init_lora_weights {start!r} {reason}.")
    if written.get("bias") == "all":
        raise InputError("lora.bias 'all' trains every bias, the vision tower's included. Use none or lora_only.")


def _names(
    model: PreTrainedModel, parts: Parts, layers: Sequence[int], wanted: Mapping[str, Any], also: Sequence[str]
) -> dict[str, Any]:
    """Full names in place of the short ones."""
    named: dict[str, Any] = {"target_modules": target_names(model, layers, wanted["target_modules"], also, parts=parts)}
    if wanted.get("target_parameters"):
        if wanted["lora_dropout"]:
            raise InputError(
                f"lora.target_parameters allow no dropout in PEFT, here it is {wanted['lora_dropout']}: add "
                "lora_dropout: 0."
            )
        named["target_parameters"] = _parameter_names(parts, layers, wanted["target_parameters"])
    excluded = wanted.get("exclude_modules")
    if excluded:
        if isinstance(excluded, str):
            raise InputError(
                f"lora.exclude_modules is {excluded!r}; expected a list of module names, such as [o_proj]."
            )
        kept = [name for name in named["target_modules"] if not any(named_so(name, short) for short in excluded)]
        if not kept:
            raise InputError(f"lora.exclude_modules {list(excluded)} leaves no module to adapt.")
        # Excluded here and once: a saved pattern would have to be understood by everything that loads the adapter.
        named |= {"target_modules": kept, "exclude_modules": None}
    return named


def _parameter_names(parts: Parts, layers: Sequence[int], short_names: Sequence[str]) -> list[str]:
    chosen = []
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
        chosen += names
    return chosen


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
    names = [*as_list(config.target_modules), *as_list(config.target_parameters)]
    for field in ("rank_pattern", "alpha_pattern"):
        patterns = getattr(config, field)
        fitting = {get_pattern_key(patterns, name) for name in names}
        if idle := [pattern for pattern in patterns if pattern not in fitting]:
            raise InputError(f"lora.{field} has {idle[0]!r}, which fits none of the {len(names)} adapted modules.")


def _check_saved_modules(model: PreTrainedModel, parts: Parts, config: LoraConfig, also: Sequence[str]) -> None:
    """Modules that are trained whole may not be what adapters may not touch."""
    for saved in as_list(config.modules_to_save):
        names = [name for name, _ in model.named_modules() if named_so(name, saved)]
        if not names:
            raise InputError(f"lora.modules_to_save names {saved!r}, and {type(model).__name__} has no such module.")
        if any(model.get_submodule(name) is parts.head for name in names):
            raise InputError("lora.modules_to_save names lm_head. A trained output head is refused: leave it out.")
        for name, tower in tower_of(model, names, parts=parts).items():
            if tower in ("vision", "projector") and tower not in also:
                raise InputError(
                    f"lora.modules_to_save {saved!r} also reaches {name} in the {tower}. Name the module in full, or "
                    f"ask for it with also_adapt: [{tower}]."
                )
