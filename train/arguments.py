"""The trainer's arguments: a recipe's `trainer` block goes into TRL's config as it is, over the defaults here."""

import difflib
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from trl import DPOConfig, SFTConfig

from vfl.errors import InputError
from vfl.train.recipe import Recipe

ZERO = Path(__file__).parent / "zero"
CHECKPOINTS = "checkpoints"
CONFIGS = {"sft": SFTConfig, "dpo": DPOConfig}

# The recipe of the paper (arXiv 2509.24791), as far as it is known.
DEFAULTS: dict[str, Any] = {
    "learning_rate": 2e-4,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.03,
    "weight_decay": 0.1,
    "num_train_epochs": 1,
    "logging_steps": 10,
    "save_steps": 500,
    "save_total_limit": 2,
    "report_to": "none",
    # The other ranks wait while the first reads, checks and encodes all rows.
    "ddp_timeout": 7200,
}
# Set here, because another value would break what the run promises; the key of the recipe that decides instead.
OURS = {
    "output_dir": "out",
    "seed": "seed",
    "deepspeed": "deepspeed",
    "gradient_checkpointing": "checkpointing",
    "gradient_checkpointing_kwargs": "checkpointing",
    "max_length": "data.max_length",
    "packing": None,
    "padding_free": None,
    "remove_unused_columns": None,
    "dataset_kwargs": None,
    "model_init_kwargs": "model, dtype, attention, revision",
    "assistant_only_loss": None,
    "completion_only_loss": None,
    "precompute_ref_log_probs": None,
    "chat_template_path": "chat_template",
}


def trainer_arguments(recipe: Recipe, dtype: torch.dtype) -> Any:
    """`SFTConfig` or `DPOConfig` of a recipe; sets up torch.distributed where a launcher asks for it.

    Args:
        recipe: validated.
        dtype: of the model's weights: decides mixed precision unless the recipe does.

    Raises:
        InputError: for unknown or reserved keys, and what TRL refuses.
    """
    kind = CONFIGS[recipe.method]
    given = recipe.trainer
    known = [field.name for field in fields(kind) if field.init]
    for key in given:
        if key in OURS:
            instead = OURS[key]
            hint = f"set {instead} of the recipe instead" if instead else "leave it out, it is decided here"
            raise InputError(f"trainer.{key} can't be set: {hint}.")
        if key not in known:
            close = difflib.get_close_matches(key, known, 3)
            hint = f"did you mean {' or '.join(close)}?" if close else "see TRL's documentation for its fields."
            raise InputError(f"trainer.{key} is no field of TRL's {kind.__name__}: {hint}")
    gpu = torch.cuda.is_available() and not given.get("use_cpu", False)
    values = {
        **DEFAULTS,
        "bf16": dtype is torch.bfloat16,
        "fp16": dtype is torch.float16,
        "use_cpu": not gpu,
        "dataloader_num_workers": _workers() if gpu else 0,
        # Only language layers hold trained weights, and every batch passes through all of them.
        "ddp_find_unused_parameters": bool(recipe.also_adapt),
        **given,
        "output_dir": str(recipe.out / CHECKPOINTS),
        "seed": recipe.seed,
        "deepspeed": deepspeed_config(recipe.deepspeed),
        "gradient_checkpointing": False,
        "max_length": None,
        "remove_unused_columns": False,
    }
    try:
        return kind(**values)
    except (TypeError, ValueError, ImportError) as error:
        raise InputError(f"TRL refuses these trainer settings: {' '.join(str(error).split())}") from error


def deepspeed_config(name: str | None) -> str | None:
    """The path of a shipped DeepSpeed configuration, or of the user's own.

    Raises:
        InputError: when there is none of that name.
    """
    if name is None:
        return None
    shipped = {path.stem: path for path in sorted(ZERO.glob("*.json"))}
    path = shipped.get(name, Path(name))
    if not path.is_file():
        raise InputError(f"deepspeed={name!r} is neither one of {', '.join(shipped)} nor a file.")
    return str(path)


def _workers() -> int:
    """Data loader processes of one rank: decoding images is what a GPU waits for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)) - 1))
