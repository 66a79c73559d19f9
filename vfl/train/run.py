"""A training run from its recipe to an adapter that was loaded back, with what it changed measured before and after."""

import json
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from peft.utils import get_peft_model_state_dict
from rich.console import Console

from vfl.errors import InputError
from vfl.evaluate.result import read_evaluation
from vfl.io.atomic import replacing
from vfl.metrics.measure import check_names
from vfl.train.adapter.card import write_card
from vfl.train.adapter.files import save_adapter, verify_adapter
from vfl.train.arguments import CHECKPOINTS
from vfl.train.assemble import Assembly, assemble
from vfl.train.backward.truncate import truncate
from vfl.train.callback.bar import use_bar
from vfl.train.callback.of_recipe import watching_of
from vfl.train.callback.tracking import offline_without_login
from vfl.train.check import preflight_of
from vfl.train.checkpoints import checkpoints, clear_leftovers
from vfl.train.preflight.facts import Preflight
from vfl.train.preflight.tables import print_preflight
from vfl.train.recipe import Recipe, read_recipe
from vfl.train.report.before_after import Change, changes_of
from vfl.train.report.page import write_training_report
from vfl.train.restricted_loading import restricted_loading
from vfl.train.trainers import trained_state

logger = logging.getLogger(__name__)

ADAPTER, RECIPE, PREFLIGHT, REPORT = "adapter", "recipe.yaml", "preflight.json", "report.html"
# Where a run lies, and what it recomputes, may change when it is resumed; what it computes may not.
_MAY_CHANGE = {"out", "checkpointing"}


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
    recipe: Recipe | str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    check: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Outcome:
    """Fine-tune as the recipe says; on several processes, every one of them calls this.

    Args:
        recipe: a YAML file, its keys and values, or what `read_recipe` returned.
        overrides: "key=value" over the recipe's settings, such as "trainer.max_steps=100".
        resume: go on from the last complete checkpoint of an interrupted run of the same recipe.
        check: stop after the preflight.
        overwrite: replace another run's results.
        progress: show bars and tables.

    Raises:
        InputError: for what can't be used; nothing is trained then.
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe, overrides)
    _refuse_if_taken(recipe, resume=resume, check=check, overwrite=overwrite)
    check_names(recipe.evaluation.metrics)
    if "wandb" in str(recipe.trainer.get("report_to")):
        offline_without_login()
    parts = assemble(recipe, progress=progress)
    trainer = parts.trainer
    main = trainer.args.process_index == 0
    with trainer.args.main_process_first(local=False, desc="generating probes"):
        watching = watching_of(recipe, parts.vlm)
    if watching is not None:
        trainer.add_callback(watching)
    use_bar(trainer, watching)
    flight, checkpointing = preflight_of(recipe, parts)
    if resume and not check:
        _refuse_other_batch(recipe.out, flight)
    # Nothing of the recipe can be refused any more, so an earlier run's results may go.
    if main and not check:
        _claim(recipe, resume=resume)
    if main:
        flight.save(recipe.out / PREFLIGHT)
        if progress:
            print_preflight(flight, Console(file=sys.stderr))
    if check:
        empty = recipe.out / CHECKPOINTS  # which Trainer makes
        if main and empty.is_dir() and not any(empty.iterdir()):
            empty.rmdir()
        return Outcome(recipe.out, flight)
    last = checkpoints(recipe.out / CHECKPOINTS) if resume else []
    if resume and not last:
        logger.warning("no complete checkpoint in %s: the run starts from the beginning", recipe.out / CHECKPOINTS)
    with (
        restricted_loading(last[-1] if last else None, deepspeed=recipe.deepspeed is not None),
        truncate(parts.peft_model, checkpointing, reentrant=parts.zero_stage == 3),
    ):
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
    # The report is written last: without it, the run can still be brought to its end.
    finished, started = (out / REPORT).exists(), (out / RECIPE).exists()
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
        other = {key: text for key, text in _differing(before, _resolved(recipe)) if key not in _MAY_CHANGE}
        if other:
            raise InputError(
                f"The interrupted run in {out} had other settings: {'; '.join(other.values())}. Use the same, or "
                "--overwrite to begin again."
            )
        return
    if finished or started:
        what = "a finished run" if finished else "an interrupted run"
        hint = "" if finished else "--resume to go on with it, "
        raise InputError(f"{out} holds {what}. Use {hint}--overwrite to replace it, or another folder with out=.")


def _differing(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys of two recipes whose values differ, each with both values for a person."""
    if isinstance(before, dict) and isinstance(now, dict):
        for inner in {**before, **now}:
            yield from _differing(before.get(inner), now.get(inner), f"{key}.{inner}" if key else inner)
    elif before != now:
        yield key, f"{key} was {before!r} and is {now!r} now"


def _refuse_other_batch(out: Path, flight: Preflight) -> None:
    """With another number of processes the steps would hold other rows than those of the interrupted run."""
    if not (out / PREFLIGHT).exists():  # killed before its first step
        return
    before = json.loads((out / PREFLIGHT).read_text(encoding="utf-8"))["launch"]
    if before["global_batch"] != flight.launch.global_batch:
        raise InputError(
            f"The interrupted run in {out} took {before['global_batch']} rows a step with {before['world_size']} "
            f"processes, this one would take {flight.launch.global_batch} with {flight.launch.world_size}. Start as "
            "many processes as before, or use --overwrite to begin again."
        )


def _claim(recipe: Recipe, *, resume: bool) -> None:
    """Make the folder this run's, and remove what a killed one was writing."""
    clear_leftovers(recipe.out, recipe.out / CHECKPOINTS)
    if not resume:
        # The recipe first: a folder without one holds no run, whatever else a kill leaves in it.
        for name in (RECIPE, PREFLIGHT, "metrics.jsonl", "evaluation.json", REPORT):
            (recipe.out / name).unlink(missing_ok=True)
        for name in (ADAPTER, CHECKPOINTS, "answers"):
            shutil.rmtree(recipe.out / name, ignore_errors=True)
    with replacing(recipe.out / RECIPE) as temporary:
        temporary.write_text(yaml.safe_dump(_resolved(recipe), sort_keys=False, allow_unicode=True), encoding="utf-8")


def _resolved(recipe: Recipe) -> dict[str, Any]:
    """The recipe with its defaults, as YAML has it; it can be run again as it is."""
    return recipe.model_dump(mode="json", by_alias=True)
