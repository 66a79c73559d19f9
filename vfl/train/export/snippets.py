"""The same adapter for other trainers: what each of them reads, with exactly the same modules.

Read from their packages: LLaMA-Factory 0.9.5, ms-swift 4.6.0, Axolotl 0.19.0, Unsloth 2026.10.9.
"""

import json
import shlex
from collections.abc import Callable
from dataclasses import MISSING, fields
from textwrap import indent
from typing import Any

import transformers
import yaml
from peft import LoraConfig

from vfl.errors import InputError
from vfl.train.export.module_patterns import pattern_of, python_of

# What a snippet states in its own way, or what PEFT and the tools fill in themselves.
_STATED = ("r", "lora_alpha", "lora_dropout", "target_modules")
_FILLED = ("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision")
_RUNTIME = ("inference_mode", "runtime_config")


def snippet(tool: str, config: LoraConfig, model: str, also: tuple[str, ...] = ()) -> str:
    """The adapter's part of a run with another trainer.

    Args:
        tool: a key of `TOOLS`.
        config: as `build_lora` gave it, before PEFT has seen it.
        model: folder or hub id of the base.
        also: the other towers that it adapts, which some tools freeze by default.

    Raises:
        InputError: when the tool cannot express the configuration; says what is in the way.
    """
    if tool not in TOOLS:
        raise InputError(f"There is no tool {tool!r}; the known ones are {', '.join(TOOLS)}.")
    return TOOLS[tool](config, model, also)


def file_name(tool: str) -> str:
    """Where a snippet is written: `peft.py` would shadow the package for a script beside it."""
    return {"llamafactory": "llamafactory.yaml", "swift": "swift.sh", "axolotl": "axolotl.yaml"}.get(
        tool, f"{tool}_lora.py"
    )


def options_of(config: LoraConfig) -> dict[str, Any]:
    """What is set besides rank, alpha, dropout and modules: the fields that differ from PEFT's defaults."""
    changed = {}
    for field in fields(LoraConfig):
        if field.name in (*_STATED, *_FILLED, *_RUNTIME) or not field.init:
            continue
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        value = getattr(config, field.name)
        if value != default:
            changed[field.name] = value
    return changed


def _peft(config: LoraConfig, model: str, also: tuple[str, ...]) -> str:
    arguments = _arguments(config)
    return (
        f"{_header('Plain PEFT')}"
        "# Save with vfl.train.adapter.files.save_adapter: PEFT itself shortens 20 and more names to their endings.\n"
        "from peft import LoraConfig, get_peft_model\n\n"
        f"config = LoraConfig(\n{arguments})\n"
        f"model = get_peft_model(model, config)  # {model}\n"
    )


def _unsloth(config: LoraConfig, model: str, also: tuple[str, ...]) -> str:
    # With all of its finetune_* filters left on, Unsloth hands a list of full names to PEFT as it is.
    return (
        f"{_header('Unsloth')}"
        "from unsloth import FastVisionModel\n\n"
        f"model, processor = FastVisionModel.from_pretrained({model!r}, load_in_4bit=False)\n"
        f"model = FastVisionModel.get_peft_model(\n    model,\n{_arguments(config)})\n"
    )


def _llamafactory(config: LoraConfig, model: str, also: tuple[str, ...]) -> str:
    options = options_of(config)
    values: dict[str, Any] = {
        "model_name_or_path": model,
        "finetuning_type": "lora",
        "lora_rank": config.r,
        "lora_alpha": _whole(config.lora_alpha, "LLaMA-Factory"),
        "lora_dropout": config.lora_dropout,
        # It looks for each of these inside the names of all modules: only full names mean one module.
        "lora_target": ",".join(_names(config)),
        "freeze_language_model": False,
        "freeze_vision_tower": "vision" not in also,
        "freeze_multi_modal_projector": "projector" not in also,
    }
    for ours in ("use_rslora", "use_dora"):
        if options.pop(ours, False):
            values[ours] = True
    if options.get("init_lora_weights") == "pissa":
        del options["init_lora_weights"]
        values |= {"pissa_init": True, "pissa_iter": -1}
    if saved := options.pop("modules_to_save", None):
        values["additional_target"] = ",".join(saved)
    _refuse_rest(options, "LLaMA-Factory")
    return _header("LLaMA-Factory") + _yaml(values)


def _axolotl(config: LoraConfig, model: str, also: tuple[str, ...]) -> str:
    options = options_of(config)
    values: dict[str, Any] = {
        "base_model": model,
        "adapter": "lora",
        "lora_r": config.r,
        "lora_alpha": _whole(config.lora_alpha, "Axolotl"),
        "lora_dropout": config.lora_dropout,
        "lora_target_modules": pattern_of(_names(config)),
    }
    theirs = {
        "use_dora": "peft_use_dora",
        "use_rslora": "peft_use_rslora",
        "init_lora_weights": "peft_init_lora_weights",
        "rank_pattern": "lora_rank_pattern",
        "alpha_pattern": "lora_alpha_pattern",
        "modules_to_save": "lora_modules_to_save",
        "target_parameters": "lora_target_parameters",
        "fan_in_fan_out": "lora_fan_in_fan_out",
        "trainable_token_indices": "peft_trainable_token_indices",
        "ensure_weight_tying": "peft_ensure_weight_tying",
    }
    for ours, name in theirs.items():
        # It passes starting values on only where they are true: a false one would be lost.
        if options.get(ours):
            values[name] = options.pop(ours)
    _refuse_rest(options, "Axolotl")
    return _header("Axolotl") + _yaml(values)


def _swift(config: LoraConfig, model: str, also: tuple[str, ...]) -> str:
    options = options_of(config)
    values: dict[str, Any] = {
        "model": model,
        "tuner_type": "lora",
        "target_regex": pattern_of(_names(config)),
        "lora_rank": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
    }
    for ours in ("use_rslora", "use_dora"):
        if options.pop(ours, False):
            values[ours] = "true"
    if "init_lora_weights" in options:
        values["init_weights"] = str(options.pop("init_lora_weights")).lower()
    for ours in ("modules_to_save", "target_parameters"):
        if listed := options.pop(ours, None):
            values[ours] = listed
    _refuse_rest(options, "ms-swift")
    lines = ["swift sft"]
    for name, value in values.items():
        words = value if isinstance(value, list) else [value]
        lines.append(f"--{name} {' '.join(shlex.quote(str(word)) for word in words)}")
    return _header("ms-swift") + " \\\n    ".join(lines) + "\n"


TOOLS: dict[str, Callable[[LoraConfig, str, tuple[str, ...]], str]] = {
    "peft": _peft,
    "llamafactory": _llamafactory,
    "swift": _swift,
    "axolotl": _axolotl,
    "unsloth": _unsloth,
}


def _header(tool: str) -> str:
    return (
        f"# {tool}: the adapter's part. Module names as Transformers {transformers.__version__} gives them; those\n"
        "# before 4.52 name the language model otherwise.\n"
    )


def _names(config: LoraConfig) -> list[str]:
    return sorted(config.target_modules or (), key=_natural)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _arguments(config: LoraConfig) -> str:
    """Keyword arguments of LoraConfig, a line each."""
    stated = {"r": config.r, "lora_alpha": config.lora_alpha, "lora_dropout": config.lora_dropout}
    lines = [f"{name}={value!r},\n" for name, value in (stated | options_of(config)).items()]
    return indent("".join([*lines, f"target_modules={python_of(_names(config))},\n"]), "    ")


def _yaml(values: dict[str, Any]) -> str:
    # Through JSON: YAML would write sets and tuples as tags of its own.
    plain = json.loads(json.dumps(values, default=list))
    return yaml.safe_dump(plain, sort_keys=False, width=10**6, allow_unicode=True)


def _whole(alpha: float, tool: str) -> int:
    if int(alpha) != alpha:
        raise InputError(f"{tool} takes whole numbers for alpha, here it is {alpha:g}: give an alpha that r divides.")
    return int(alpha)


def _refuse_rest(options: dict[str, Any], tool: str) -> None:
    if options:
        raise InputError(f"{tool} has no setting for {', '.join(options)}, so its adapter would be another one.")
