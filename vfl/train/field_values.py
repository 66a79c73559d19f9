"""Values of TRL's and PEFT's own fields, checked where they are written: their configs take anything, and fail late."""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from types import NoneType
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from vfl.errors import InputError

Check = tuple[Callable[[float], bool], str]

_POSITIVE: Check = (lambda value: value > 0, "more than 0")
_FROM_0: Check = (lambda value: value >= 0, "0 or more")
_FROM_2: Check = (lambda value: value >= 2, "2 or more")
_FROM_1: Check = (lambda value: value >= 1, "1 or more")
_BELOW_1: Check = (lambda value: 0 <= value < 1, "from 0 to below 1")
_SHARE: Check = (lambda value: 0 <= value <= 1, "from 0 to 1")
_STEPS: Check = (lambda value: value == -1 or value >= 1, "1 or more, or -1 for as many as the epochs have")

RANGES: dict[str, dict[str, Check]] = {
    "trainer": {
        "per_device_train_batch_size": _FROM_1,
        "per_device_eval_batch_size": _FROM_1,
        "gradient_accumulation_steps": _FROM_1,
        "num_train_epochs": _POSITIVE,
        "max_steps": _STEPS,
        "learning_rate": _FROM_0,
        "warmup_steps": _FROM_0,
        "weight_decay": _FROM_0,
        "adam_beta1": _BELOW_1,
        "adam_beta2": _BELOW_1,
        "adam_epsilon": _FROM_0,
        "max_grad_norm": _FROM_0,
        "label_smoothing_factor": _SHARE,
        "neftune_noise_alpha": _FROM_0,
        "logging_steps": _POSITIVE,
        "save_steps": _POSITIVE,
        "save_total_limit": _FROM_1,
        "dataloader_num_workers": _FROM_0,
        "dataloader_prefetch_factor": _FROM_1,
        "ddp_timeout": _FROM_1,
        "torch_empty_cache_steps": _FROM_1,
        "beta": _FROM_0,
    },
    "grpo": {
        "num_generations": _FROM_2,
        "max_completion_length": _FROM_1,
        "temperature": _POSITIVE,
        "top_p": (lambda value: 0 < value <= 1, "more than 0, at most 1"),
        "top_k": _FROM_0,
        "min_p": _SHARE,
        "repetition_penalty": _POSITIVE,
        "steps_per_generation": _FROM_1,
        "num_iterations": _FROM_1,
        "beta": _FROM_0,
        "epsilon": _FROM_0,
        "epsilon_high": _FROM_0,
        "delta": _POSITIVE,
        "top_entropy_quantile": _SHARE,
        "off_policy_mask_threshold": _FROM_0,
        "router_aux_loss_coef": _FROM_0,
        "sapo_temperature_neg": _POSITIVE,
        "sapo_temperature_pos": _POSITIVE,
        "vespo_k_pos": _FROM_0,
        "vespo_lambda_pos": _FROM_0,
        "vespo_k_neg": _FROM_0,
        "vespo_lambda_neg": _FROM_0,
    },
    "lora": {"r": _FROM_1, "lora_alpha": _POSITIVE, "lora_dropout": _BELOW_1},
}
# PEFT says that alpha is a whole number, and computes with any.
_KINDS = {"lora": {"lora_alpha": float}}


def checked(block: str, kind: type, written: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a recipe's block, each as its field has it ("2e-4" as a number).

    Args:
        block: of the recipe: "trainer", "grpo" or "lora".
        kind: the dataclass that it goes into.
        written: its keys and values; unknown keys are left to the caller.

    Raises:
        InputError: names the key, what was given and what is expected.
    """
    hints = get_type_hints(kind) | _KINDS.get(block, {})
    known = {field.name for field in fields(kind)}
    return {
        key: _value(f"{block}.{key}", value, hints[key], RANGES[block].get(key)) if key in known else value
        for key, value in written.items()
    }


def _value(name: str, value: Any, hint: Any, limits: Check | None) -> Any:
    kinds = {kind for kind in (hint, *get_args(hint)) if kind in (int, float, bool, str, NoneType)}
    if not kinds or kinds != set(get_args(hint) or (hint,)):
        return value  # objects and lists of their own: they say themselves what they take
    expected = " or ".join(_WORDS[kind] for kind in _WORDS if kind in kinds)
    if limits:
        expected += f", {limits[1]}"
    wrong = InputError(f"{name} is {value!r}; expected {expected}.")
    if isinstance(value, bool) and bool not in kinds:  # yes is 1 to Python
        raise wrong
    try:
        value = TypeAdapter(hint).validate_python(value)
    except ValidationError:
        raise wrong from None
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong
    if limits and value is not None and not limits[0](value):
        raise wrong
    return value


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "null"}
