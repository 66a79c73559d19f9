"""The fields of TRL's GRPOConfig that a recipe's `grpo` block may set, and those that are decided here."""

import math
import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from trl import GRPOConfig
from trl.trainer.base_config import _BaseConfig

from vfl.errors import InputError
from vfl.io.did_you_mean import did_you_mean
from vfl.train.field_values import checked
from vfl.train.grpo.config import GrpoConfig

SAMPLING = (
    *("num_generations", "max_completion_length", "temperature", "top_p", "top_k", "min_p", "repetition_penalty"),
    *("steps_per_generation", "mask_truncated_completions"),
)
LOSS = (
    *("beta", "num_iterations", "loss_type", "scale_rewards", "multi_objective_aggregation"),
    *("epsilon", "epsilon_high", "delta", "importance_sampling_level", "top_entropy_quantile"),
    *("off_policy_mask_threshold", "use_bias_correction_kl", "router_aux_loss_coef"),
    *("sapo_temperature_neg", "sapo_temperature_pos"),
    *("vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg", "vespo_lambda_neg"),
)
MAY_SET = (*SAMPLING, *LOSS)
# TRL takes any text here, and fails in the first step.
CHOICES = {
    "loss_type": ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "luspo", "sapo", "vespo"),
    "scale_rewards": ("group", "batch", "none"),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
}
# A LoRA adapter takes about ten times the rate of full fine-tuning, for which TRL's default is 1e-6.
DEFAULTS: dict[str, Any] = {"learning_rate": 1e-5}
OWN = {field.name for field in fields(GRPOConfig)} - {field.name for field in fields(_BaseConfig)}
"""Fields that are GRPO's alone: in a recipe they stand in `grpo`, the others in `trainer`."""
_INSTEAD = {
    "reward_weights": "set grpo.rewards instead",
    "generation_batch_size": "set grpo.steps_per_generation instead",
    "generation_kwargs": "set temperature, top_p and the like instead",
    "model_init_kwargs": "set model, dtype, attention, revision of the recipe instead",
    "trust_remote_code": "set trust_remote_code of the recipe instead",
}


def grpo_values(config: GrpoConfig) -> dict[str, Any]:
    """Keyword arguments of GRPOConfig from the recipe's block.

    Raises:
        InputError: for keys that are unknown or decided here, and values that can't be used.
    """
    written = config.fields
    for key in written:
        if key in MAY_SET:
            continue
        if key not in OWN:
            raise InputError(
                f"grpo.{key} is no setting of GRPO: {did_you_mean(key, ['rewards', *MAY_SET]) or 'see the settings.'}"
            )
        hint = "answers are sampled by Transformers here" if key.startswith(("use_vllm", "vllm")) else None
        raise InputError(f"grpo.{key} can't be set: {hint or _INSTEAD.get(key, 'leave it out, it is decided here')}.")
    values = checked("grpo", GRPOConfig, written)
    for key, allowed in CHOICES.items():
        if key in values and values[key] not in allowed:
            raise InputError(f"grpo.{key} is {values[key]!r}; expected one of {', '.join(allowed)}.")
    return {
        **values,
        "reward_weights": list(config.rewards.values()),
        # What is sampled must be what is trained: dropout would make them two models.
        "disable_dropout": True,
    }


def check_rounds(values: Mapping[str, Any]) -> None:
    """Raise InputError where the answers of a round don't come in whole groups, or a checkpoint falls between rounds.

    Args:
        values: keyword arguments of GRPOConfig.
    """
    defaults: dict[str, Any] = {field.name: field.default for field in fields(GRPOConfig)} | dict(values)
    accumulated = int(defaults["gradient_accumulation_steps"])
    batches = int(defaults["steps_per_generation"] or accumulated)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    answers, group = int(defaults["per_device_train_batch_size"]) * world * batches, int(defaults["num_generations"])
    if answers % group:
        raise InputError(
            f"{answers} answers are sampled at a time (trainer.per_device_train_batch_size x processes x "
            f"grpo.steps_per_generation, which is trainer.gradient_accumulation_steps if left out), and that is no "
            f"multiple of grpo.num_generations, {group}: change one of them."
        )
    every = period(batches * int(defaults["num_iterations"]), accumulated)
    by_steps = str(getattr(defaults["save_strategy"], "value", defaults["save_strategy"])) == "steps"
    if every > 1 and by_steps and (defaults["save_steps"] < 1 or defaults["save_steps"] % every):
        raise InputError(
            f"A round of sampled answers lasts {every} steps, and trainer.save_steps {defaults['save_steps']:g} would "
            f"write a checkpoint in the middle of it, from which no run can be resumed: give a multiple of {every}."
        )


def check_resumed(args: GRPOConfig, step: int, steps_per_epoch: int) -> None:
    """Raise InputError where a checkpoint lies in the middle of a round, whose other answers are gone.

    Args:
        step: at which it was written.
        steps_per_epoch: of the run.
    """
    if step % steps_per_epoch * args.gradient_accumulation_steps % rounds(args):
        raise InputError(
            f"The checkpoint after step {step} lies in the middle of a round of sampled answers, which are not kept: "
            "use --overwrite to begin again, with trainer.save_steps at the ends of rounds."
        )


def period(batches: int, accumulated: int) -> int:
    """Steps after which the trained batches come to whole rounds again.

    Args:
        batches: that a round of sampled answers is trained on.
        accumulated: batches of a step.
    """
    return batches // math.gcd(batches, accumulated)


def sampled_together(args: GRPOConfig) -> int:
    """Different questions whose answers are sampled at a time, over all processes."""
    return int(args.generation_batch_size) // int(args.num_generations)


def rounds(args: GRPOConfig) -> int:
    """Batches of a process that are trained on one round of sampled answers."""
    return int(args.steps_per_generation) * int(args.num_iterations)
