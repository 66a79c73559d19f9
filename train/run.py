"""A training run from its recipe to an adapter that was loaded back, with what it changed measured before and after."""

import logging
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from peft.utils import get_peft_model_state_dict
from rich.console import Console

from vfl.atomic import replacing
from vfl.errors import InputError
from vfl.evaluating.result import read_evaluation
from vfl.train.adapter import save_adapter, verify_adapter
from vfl.train.arguments import CHECKPOINTS
from vfl.train.assemble import Assembly, assemble
from vfl.train.backward import truncate
from vfl.train.bar import use_bar
from vfl.train.card import write_card
from vfl.train.changes import Change, changes_of
from vfl.train.checkpoints import checkpoints
from vfl.train.exam import watching_of
from vfl.train.flight import fly
from vfl.train.preflight import Preflight
from vfl.train.recipe import Recipe
from vfl.train.tracking import offline_without_login
from vfl.train.trainers import trained_state
from vfl.train.training_report import write_training_report

logger = logging.getLogger(__name__)

ADAPTER, RECIPE, PREFLIGHT = "adapter", "recipe.yaml", "preflight.json"
# Where a run stands and with how many processes may change when it is resumed; what it computes may not.
_MAY_CHANGE = {"checkpointing", "deepspeed"}


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        folder: of the run.
        flight: its preflight.
        adapter: folder of the adapter; None after a check alone.
        changes: accuracies before and after, on the first process.
    """

    folder: Path
    flight: Preflight
    adapter: Path | None = None
    changes: tuple[Change, ...] = ()


def train(
    recipe: Recipe, *, resume: bool = False, check: bool = False, overwrite: bool = False, progress: bool = True
) -> Outcome:
    """Fine-tune as the recipe says; on several processes, every one of them calls this.

    Args:
        recipe: validated (`read_recipe`).
        resume: go on from the last complete checkpoint of an interrupted run of the same recipe.
        check: stop after the preflight.
        overwrite: replace another run's results.
        progress: show bars and tables.

    Raises:
        InputError: for what can't be used; nothing is trained then.
    """
    _refuse_if_taken(recipe, resume=resume, check=check, overwrite=overwrite)
    if "wandb" in str(recipe.trainer.get("report_to")):
        offline_without_login()
    parts = assemble(recipe, progress=progress)
    trainer = parts.trainer
    main = trainer.args.process_index == 0
    if main and not check:
        _claim(recipe, resume=resume)
    with trainer.args.main_process_first(local=False, desc="generating probes"):
        watching = watching_of(recipe, parts.vlm)
    if watching is not None:
        trainer.add_callback(watching)
    use_bar(trainer, watching)
    flight, checkpointing = fly(recipe, parts)
    if main:
        flight.save(recipe.out / PREFLIGHT)
        if progress:
            flight.print(Console(file=sys.stderr))
    if check:
        return Outcome(recipe.out, flight)
    last = checkpoints(recipe.out / CHECKPOINTS) if resume else []
    if resume and not last:
        logger.warning("no complete checkpoint in %s: the run starts from the beginning", recipe.out / CHECKPOINTS)
    with truncate(parts.peft_model, checkpointing, reentrant=parts.zero_stage == 3) as truncation:
        if main:
            logger.info("%s", truncation)
        trainer.train(resume_from_checkpoint=str(last[-1]) if last else None)
    adapter = _save(recipe, parts)
    changes: list[Change] = []
    if main:
        changes = changes_of(read_evaluation(recipe.out)[0]) if watching is not None else []
        write_card(adapter, flight, _options(parts), changes, command=f"vfl train {recipe.out / RECIPE}")
        write_training_report(recipe.out)
    return Outcome(recipe.out, flight, adapter, tuple(changes))


def _save(recipe: Recipe, parts: Assembly) -> Path:
    """Write the adapter and load it back; every process takes part."""
    folder = recipe.out / ADAPTER
    model = parts.trainer.accelerator.unwrap_model(parts.trainer.model)
    state = trained_state(model)
    if parts.trainer.args.process_index == 0:
        save_adapter(model, folder, state)
        trained = get_peft_model_state_dict(model, state_dict=state, save_embedding_layers=False)
        if parts.zero_stage != 3:
            count = verify_adapter(parts.vlm.model, folder, trained)
            logger.info("the adapter in %s was loaded back: %d tensors, none missing, none empty", folder, count)
    if parts.trainer.args.world_size > 1:
        torch.distributed.barrier()
    return folder


def _options(parts: Assembly) -> dict[str, Any]:
    """LoRA's options for the card: what differs from PEFT's defaults, less the module names."""
    plain = type(parts.lora)()
    given = parts.lora.to_dict()
    return {
        key: value
        for key, value in given.items()
        if key not in ("target_modules", "base_model_name_or_path", "inference_mode") and value != plain.to_dict()[key]
    }


def _refuse_if_taken(recipe: Recipe, *, resume: bool, check: bool, overwrite: bool) -> None:
    """Say whose the folder is, unless this run may use it."""
    out = recipe.out
    finished, started = (out / ADAPTER).exists(), (out / RECIPE).exists()
    if check or overwrite:
        return
    if resume:
        if finished:
            raise InputError(
                f"{out} holds a finished run; there is nothing to resume. Use --overwrite to run it again."
            )
        if not started:
            raise InputError(
                f"{out} holds no run to resume. Leave --resume out, or give the folder of the run with out=."
            )
        before = yaml.safe_load((out / RECIPE).read_text(encoding="utf-8"))
        now = _resolved(recipe)
        other = sorted(key for key in {*before, *now} - _MAY_CHANGE if before.get(key) != now.get(key))
        if other:
            listed = ", ".join(f"{key}: {before.get(key)!r} then, {now.get(key)!r} now" for key in other)
            raise InputError(
                f"The interrupted run in {out} had other settings ({listed}). Use the same, or --overwrite."
            )
        return
    if finished or started:
        what = "an adapter" if finished else "an interrupted run"
        hint = "" if finished else "--resume to go on with it, "
        raise InputError(f"{out} holds {what}. Use {hint}--overwrite to replace it, or another folder with out=.")


def _claim(recipe: Recipe, *, resume: bool) -> None:
    """Make the folder this run's."""
    if not resume:
        for name in (ADAPTER, CHECKPOINTS):
            shutil.rmtree(recipe.out / name, ignore_errors=True)
        for name in (PREFLIGHT, "metrics.jsonl", "evaluation.json", "report.html"):
            (recipe.out / name).unlink(missing_ok=True)
    with replacing(recipe.out / RECIPE) as temporary:
        temporary.write_text(yaml.safe_dump(_resolved(recipe), sort_keys=False, allow_unicode=True), encoding="utf-8")


def _resolved(recipe: Recipe) -> dict[str, Any]:
    """The recipe with its defaults, as YAML has it; it can be run again as it is."""
    return recipe.model_dump(mode="json", by_alias=True)
