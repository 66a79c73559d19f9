"""The trainer's arguments: a recipe's `trainer` block goes into TRL's config as it is, over the defaults here."""

import os
import socket
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from trl import DPOConfig, GRPOConfig, KTOConfig, SFTConfig

from vfl.errors import InputError
from vfl.io.did_you_mean import did_you_mean
from vfl.train.field_values import checked
from vfl.train.grpo import arguments as grpo
from vfl.train.grpo.config import GrpoConfig
from vfl.train.recipe import Recipe

ZERO = Path(__file__).parent / "deepspeed"
CHECKPOINTS = "checkpoints"
CONFIGS = {"sft": SFTConfig, "dpo": DPOConfig, "kto": KTOConfig, "grpo": GRPOConfig}

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
    # The other ranks wait while the first draws probes, or chooses layers by the rows.
    "ddp_timeout": 7200,
}
# Set here, because another value would break what the run promises; the key of the recipe that decides instead.
OURS = {
    "output_dir": "out",
    "seed": "seed",
    "deepspeed": "deepspeed",
    "gradient_checkpointing": "checkpointing",
    "gradient_checkpointing_kwargs": "checkpointing",
    "activation_checkpointing": "checkpointing",
    "activation_checkpointing_kwargs": "checkpointing",
    "fsdp": "fsdp",
    "fsdp_config": "fsdp",
    "eval_strategy": "evaluation.every",
    "eval_steps": "evaluation.every",
    "do_eval": "evaluation",
    # The best is found by evaluations that Trainer makes; here the callback makes them.
    "load_best_model_at_end": None,
    "metric_for_best_model": None,
    "greater_is_better": None,
    "save_only_model": None,  # could not be resumed
    "push_to_hub": None,
    "max_length": "data.max_length",
    "trust_remote_code": "trust_remote_code",
    "model_init_kwargs": "model, dtype, attention, revision",
    "chat_template_path": "chat_template",
    "eos_token": "chat_template",
    "packing": "packing",
    "packing_strategy": "packing",
    "padding_free": "packing",
    # Rows are read, encoded and batched here, not by TRL.
    **dict.fromkeys(
        (
            "assistant_only_loss",
            "completion_only_loss",
            "dataset_kwargs",
            "dataset_num_proc",
            "dataset_text_field",
            "eval_packing",
            "pad_to_multiple_of",
            "pad_token",
            "precompute_ref_batch_size",
            "precompute_ref_log_probs",
            "remove_unused_columns",
            "shuffle_dataset",
            "truncation_mode",
        )
    ),
}

# What a run can't go with, and why.
REFUSED = {
    "use_liger_kernel": (
        "its kernels replace the forward passes that evaluations and losses here look into, and TRL drops it in 2.0; "
        "TRL's own loss makes no whole logits either"
    ),
}


def trainer_arguments(recipe: Recipe, dtype: torch.dtype) -> Any:
    """TRL's config of a recipe's method; sets up torch.distributed where a launcher asks for it.

    Args:
        recipe: validated.
        dtype: of the model's weights: decides mixed precision unless the recipe does.

    Raises:
        InputError: for unknown or reserved keys, and what TRL refuses.
    """
    kind = CONFIGS[recipe.method]
    written = recipe.trainer
    known = [field.name for field in fields(kind) if field.init]
    sampling: dict[str, Any] = {}
    if recipe.method == "grpo":
        sampling = grpo.grpo_values(recipe.grpo or GrpoConfig())
        known = [name for name in known if name not in grpo.OWN]
    for key in written:
        if key in REFUSED and written[key]:
            raise InputError(f"trainer.{key} can't be used: {REFUSED[key]}. Leave it out.")
        if key in OURS:
            instead = OURS[key]
            hint = f"set {instead} of the recipe instead" if instead else "leave it out, it is decided here"
            raise InputError(f"trainer.{key} can't be set: {hint}.")
        if recipe.method == "grpo" and key in grpo.MAY_SET:
            raise InputError(f"trainer.{key} is a setting of GRPO: set grpo.{key} instead.")
        if key not in known:
            hint = did_you_mean(key, known) or "see TRL's documentation for its fields."
            raise InputError(f"trainer.{key} is no field of TRL's {kind.__name__}: {hint}")
    written = checked("trainer", kind, written)
    if str(getattr(written.get("save_strategy"), "value", written.get("save_strategy"))) == "best":
        raise InputError(
            "trainer.save_strategy is best, and no run here knows a best step: use steps or epoch. The accuracies of "
            "evaluation.every say which checkpoint was best; keep enough of them with trainer.save_total_limit."
        )
    gpu = torch.cuda.is_available() and not written.get("use_cpu", False)
    values: dict[str, Any] = {
        **DEFAULTS,
        **(grpo.DEFAULTS if recipe.method == "grpo" else {}),
        "bf16": dtype is torch.bfloat16,
        "fp16": dtype is torch.float16,
        "use_cpu": not gpu,
        "dataloader_num_workers": _workers() if gpu else 0,
        # Only language layers hold trained weights, and every batch passes through all that are not frozen.
        "ddp_find_unused_parameters": bool(recipe.also_adapt) or recipe.freeze is not None,
        **written,
        **sampling,
        "output_dir": str(recipe.out / CHECKPOINTS),
        "seed": recipe.seed,
        "deepspeed": deepspeed_config(recipe.deepspeed),
        # Two names for one thing, of which older Transformers know the first.
        **{name: False for name in ("gradient_checkpointing", "activation_checkpointing") if name in known},
        **({"max_length": None} if "max_length" in known else {}),
        "remove_unused_columns": False,
    }
    if recipe.method == "grpo":
        grpo.check_rounds(values)
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        raise InputError(
            "accelerate was told to use its FSDP (ACCELERATE_USE_FSDP), which spreads the adapter as well: launch "
            "without it, and set fsdp: true of the recipe instead, or deepspeed."
        )
    if recipe.deepspeed:
        # With it, accelerate would quietly take plain data parallelism instead (use_cpu says what is needed).
        os.environ.pop("ACCELERATE_USE_CPU", None)
        _stand_alone()
    try:
        args = kind(**values)
    except (TypeError, ValueError, ImportError) as error:
        raise InputError(f"TRL refuses these trainer settings: {' '.join(str(error).split())}") from error
    if recipe.deepspeed:
        _name_ranks()
    return args


def _stand_alone() -> None:
    """Without a launcher DeepSpeed would look for MPI: say that this process is the only one."""
    if "RANK" in os.environ:
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))


def _name_ranks() -> None:
    """Tell DeepSpeed of the ranks: Trainer does so on GPUs alone, and ZeRO-3 asks while the model is read."""
    import deepspeed  # takes seconds

    if not deepspeed.comm.is_initialized():
        deepspeed.init_distributed()


def deepspeed_config(name: str | None) -> str | None:
    """The path of a shipped DeepSpeed configuration, or of the user's own.

    Raises:
        InputError: when there is none of that name, or DeepSpeed is not installed.
    """
    if name is None:
        return None
    shipped = {path.stem: path for path in sorted(ZERO.glob("*.json"))}
    path = shipped.get(name, Path(name))
    if not path.is_file():
        raise InputError(f"deepspeed={name!r} is neither one of {', '.join(shipped)} nor a file.")
    if find_spec("deepspeed") is None:
        raise InputError(
            f'deepspeed={name!r} needs DeepSpeed, which is not installed: pip install "vfl[train,deepspeed]". Without '
            "this setting several GPUs train too, each with the whole model (DDP)."
        )
    return str(path)


def _workers() -> int:
    """Data loader processes of one rank: decoding images is what a GPU waits for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)) - 1))
