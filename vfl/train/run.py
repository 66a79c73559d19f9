"""A training run from its recipe to an adapter that was loaded back, with what it changed measured before and after."""

import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from peft.utils import get_peft_model_state_dict
from rich.console import Console

from vfl.errors import InputError
from vfl.evaluate.result import read_evaluation
from vfl.io.config import read_yaml
from vfl.io.notebook import html_table
from vfl.io.run_folder import SETTINGS, RunFolder, write_settings
from vfl.metrics.measure import check_names
from vfl.models.pixel_limits import save_limits
from vfl.train.adapter.card import write_card
from vfl.train.adapter.files import save_adapter, verify_adapter
from vfl.train.arguments import CHECKPOINTS
from vfl.train.assemble import Assembly, assemble
from vfl.train.backward.truncate import truncate
from vfl.train.began_there import BeganThere
from vfl.train.callback.bar import use_bar
from vfl.train.callback.best import BEST
from vfl.train.callback.evaluation import METRICS
from vfl.train.callback.of_recipe import evaluation_callback_of
from vfl.train.callback.tracking import offline_without_login
from vfl.train.callback.watch import watch
from vfl.train.check import preflight_of
from vfl.train.checkpoints import checkpoints, clear_leftovers
from vfl.train.grpo.arguments import check_resumed
from vfl.train.preflight.facts import Preflight
from vfl.train.preflight.tables import print_preflight
from vfl.train.previous import DropPrevious, PreviousRun
from vfl.train.recipe import Recipe, read_recipe
from vfl.train.report.before_after import Change, changes_of, gained, points
from vfl.train.report.log import read_log
from vfl.train.report.page import training_panels, write_training_report
from vfl.train.restricted_loading import restricted_loading
from vfl.train.resumed_settings import MAY_CHANGE, as_before, goes_on
from vfl.train.trainers import trained_state
from vfl.train.troubles import explained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

ADAPTER, PREFLIGHT, REPORT = "adapter", "preflight.json", "report.html"
_RESULTS = (REPORT, PREFLIGHT, METRICS, "evaluation.json", ADAPTER, CHECKPOINTS, "answers", BEST)


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        folder: of the run.
        flight: its preflight.
        adapter: folder of the adapter; None after a check alone.
        changes: accuracies before and after, on the first process.
        preflight: its preflight.json; None after a check in the folder of another run, where nothing is written.
    """

    folder: Path
    flight: Preflight
    adapter: Path | None = None
    changes: tuple[Change, ...] = ()
    preflight: Path | None = None

    def __repr__(self) -> str:
        return f"Outcome({self.folder}, {'checked' if self.adapter is None else f'adapter {self.adapter}'})"

    def _repr_html_(self) -> str:
        rows = [
            (change.group, change.n, points(change.before), points(change.after), gained(change))
            for change in self.changes
        ]
        trained = f"{self.flight.trainable_parameters:,} trainable parameters"
        where = [] if self.adapter is None else [f"Adapter: {self.adapter}", f"Report: {self.folder / REPORT}"]
        title = f"{'Checked' if self.adapter is None else 'Trained'}: {self.flight.model.id}, {trained}"
        return html_table(title, ("group", "n", "before", "after", "change (points)"), rows, where)

    def plot(self) -> "Figure":
        """The loss, and the accuracy of every group with its 95 % interval, by step; read from the run's folder.

        Raises:
            InputError: where nothing was trained, or the folder has no log any more.
        """
        from vfl.report.picture import picture

        figure = None
        if self.adapter is not None:
            log = read_log(self.folder / METRICS)
            figure = picture(f"Training of {self.flight.model.id}", panels=training_panels(log))
        if figure is None:
            why = "the run was only checked" if self.adapter is None else f"{self.folder / METRICS} logs no step"
            raise InputError(f"There is nothing to draw: {why}. Train without check=True, and keep the folder.")
        return figure


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
        check: stop after the preflight; in a folder that holds a run, nothing is written.
        overwrite: replace another run's results.
        progress: show bars and tables.

    Raises:
        InputError: for what can't be used; nothing is trained then.
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe, overrides)
    with explained(recipe, folder_of(recipe)):
        return _in_folder(recipe, resume=resume, check=check, overwrite=overwrite, progress=progress)


def _in_folder(recipe: Recipe, *, resume: bool, check: bool, overwrite: bool, progress: bool) -> Outcome:
    """The run in its folder, which is refused or held."""
    folder = folder_of(recipe)
    before = read_yaml(folder.path / SETTINGS) if resume and folder.started else {}
    if resume and goes_on(before, _resolved(recipe)):  # a run that ended can be made longer
        folder = replace(folder, grows=True)
    if check and folder.taken:
        return _check_beside(recipe, progress=progress)
    main = int(os.environ.get("RANK", "0")) == 0  # of several processes, the first holds the folder for all
    holding = folder.held if main else _looked_at(folder)
    with holding(overwrite=overwrite or check, resume=resume):
        if resume and not (check or overwrite):
            folder.refuse_other_settings(as_before(before, _resolved(recipe)), may_change=MAY_CHANGE)
        previous = PreviousRun(recipe.out, _RESULTS)
        if main:
            previous.settle(resume=resume)
        with previous.guarded() if main else nullcontext():
            return _train(recipe, previous, resume=resume, check=check, progress=progress)


def folder_of(recipe: Recipe) -> RunFolder:
    """The folder of a run. The report is written last: without it, the run can still be brought to its end."""
    smaller = "keep fewer checkpoints with trainer.save_total_limit"
    return RunFolder(recipe.out, REPORT, another="another folder with out=", smaller=smaller)


def _looked_at(folder: RunFolder) -> Any:
    """As `folder.held`, without the lock."""

    @contextmanager
    def holding(**how: bool) -> Iterator[None]:
        folder.refuse_if_taken(**how)
        yield

    return holding


def _check_beside(recipe: Recipe, *, progress: bool) -> Outcome:
    """The preflight where the folder holds a run: what it writes lies beside that for as long as it takes."""
    place = recipe.out.absolute().with_name(f".{recipe.out.absolute().name}.check")
    folder = RunFolder(place, PREFLIGHT, another="another folder with out=", whole=True)  # the lock beside it, too
    main = int(os.environ.get("RANK", "0")) == 0
    with folder.alone() if main else nullcontext():
        try:
            outcome = _train(
                recipe.model_copy(update={"out": place}), None, resume=False, check=True, progress=progress
            )
        finally:
            if main:
                shutil.rmtree(place, ignore_errors=True)
    return Outcome(recipe.out, outcome.flight)


def _train(recipe: Recipe, previous: PreviousRun | None, *, resume: bool, check: bool, progress: bool) -> Outcome:
    """The run itself, in a folder that it may use; `previous` is None where a check claims none."""
    check_names(recipe.evaluation.metrics)
    if "wandb" in str(recipe.trainer.get("report_to")):
        offline_without_login()
    parts = assemble(recipe, progress=progress, readers=_readers_before(recipe.out) if resume and not check else None)
    trainer = parts.trainer
    main = trainer.args.process_index == 0
    last = last_of_all(recipe.out / CHECKPOINTS) if resume else []
    trainer.add_callback(BeganThere(last[-1] if last else None))
    with trainer.args.main_process_first(local=False, desc="generating probes"):
        evaluation = evaluation_callback_of(recipe, parts.vlm)
    watch(recipe, parts, evaluation)
    use_bar(trainer, evaluation)
    flight, checkpointing = preflight_of(recipe, parts, evaluation)
    if resume and not check:
        _refuse_other_batch(recipe.out, flight)
        if last:
            _refuse_other_data(recipe.out, flight)
        if last and recipe.method == "grpo":
            check_resumed(trainer.args, int(last[-1].name.rpartition("-")[2]), flight.launch.steps_per_epoch)
    if main and not check and previous is not None:
        _claim(recipe, previous, resume=resume)
        trainer.add_callback(DropPrevious(previous))
    if main:
        flight.save(recipe.out / PREFLIGHT)
        if progress:
            print_preflight(flight, Console(file=sys.stderr))
    if check:
        empty = recipe.out / CHECKPOINTS  # which Trainer makes
        if main and empty.is_dir() and not any(empty.iterdir()):
            empty.rmdir()
        return Outcome(recipe.out, flight, preflight=recipe.out / PREFLIGHT)
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
        changes = changes_of(read_evaluation(recipe.out)[0]) if evaluation is not None else []
        write_card(adapter, flight, _options(parts), changes, command=f"vfl train {recipe.out / SETTINGS}")
        write_training_report(recipe.out)
    return Outcome(recipe.out, flight, adapter, tuple(changes), recipe.out / PREFLIGHT)


def last_of_all(folder: Path) -> list[Path]:
    """The complete checkpoints, which every process must see alike: one of a machine with its own disk does not."""
    found = checkpoints(folder)
    newest = gather_object([found[-1].name if found else "none"])
    if len(set(newest)) > 1:
        seen = ", ".join(f"process {rank}: {name}" for rank, name in enumerate(newest))
        raise InputError(
            f"The processes see other checkpoints in {folder} ({seen}), so they would go on from different steps: give "
            "out a folder that all machines share, or copy the newest checkpoint to each of them."
        )
    return found


def _save(recipe: Recipe, parts: Assembly) -> Path:
    """Write the adapter and load it back; every process takes part."""
    folder = recipe.out / ADAPTER
    model = parts.trainer.accelerator.unwrap_model(parts.trainer.model)
    state = trained_state(model)
    if parts.trainer.args.process_index == 0:
        save_adapter(model, folder, state)
        save_limits(parts.vlm.processor, folder)
        trained = get_peft_model_state_dict(model, state_dict=state, save_embedding_layers=False)
        count = verify_adapter(parts.vlm.model, folder, trained)
        logger.info("the adapter in %s was loaded back: %d tensors, none missing, none empty", folder, count)
    if parts.trainer.args.world_size > 1:
        torch.distributed.barrier()
    return folder


def _options(parts: Assembly) -> dict[str, Any]:
    """LoRA's options for the card: what differs from PEFT's defaults, less the module names."""
    plain = type(parts.lora)()
    written = parts.lora.to_dict()
    return {
        key: value
        for key, value in written.items()
        if key not in ("target_modules", "base_model_name_or_path", "inference_mode") and value != plain.to_dict()[key]
    }


def _refuse_other_batch(out: Path, flight: Preflight) -> None:
    """With another number of processes the steps would hold other rows than those of the interrupted run."""
    if not (out / PREFLIGHT).exists():  # killed before its first step
        return
    before = json.loads((out / PREFLIGHT).read_text(encoding="utf-8"))["launch"]
    if before["global_batch"] != flight.launch.global_batch:
        raise InputError(
            f"The interrupted run in {out} took {before['global_batch']} {flight.launch.unit} a step with "
            f"{before['world_size']} processes, this one would take {flight.launch.global_batch} with "
            f"{flight.launch.world_size}. Start as many processes as before, or use --overwrite to begin again."
        )


def _refuse_other_data(out: Path, flight: Preflight) -> None:
    """With other rows in a file the steps that are left would hold some rows twice and others never."""
    if not (out / PREFLIGHT).exists():
        return
    before = json.loads((out / PREFLIGHT).read_text(encoding="utf-8"))["data"]["files"]
    changed = [name for name, digest in flight.data.files.items() if before.get(name, digest) != digest]
    # A folder's hash is over all of its files: where the run itself writes, it says nothing of the data.
    if lost := [name for name in changed if not out.resolve().is_relative_to(Path(name).resolve())]:
        raise InputError(
            f"{', '.join(lost)} {'was' if len(lost) == 1 else 'were'} changed since the interrupted run in {out} "
            "began: the steps that are left would not hold the rows that are left. Put the old data back, or use "
            "--overwrite to begin again."
        )


def _readers_before(out: Path) -> int | None:
    """The reading processes that the interrupted run's order of rows was made for: others would have other steps."""
    if not (out / PREFLIGHT).exists():
        return None
    order = json.loads((out / PREFLIGHT).read_text(encoding="utf-8")).get("order")
    return None if order is None else int(order["readers"])


def _claim(recipe: Recipe, previous: PreviousRun, *, resume: bool) -> None:
    """Make the folder this run's, and remove what a killed one was writing."""
    clear_leftovers(*(recipe.out / name for name in ("", CHECKPOINTS, "answers")))
    if resume:  # a run that is made longer is none that has ended
        (recipe.out / REPORT).unlink(missing_ok=True)
    else:
        previous.move_aside()
    write_settings(recipe.out, _resolved(recipe))


def _resolved(recipe: Recipe) -> dict[str, Any]:
    """The recipe with its defaults, as YAML has it; it can be run again as it is."""
    return recipe.model_dump(mode="json", by_alias=True, exclude={"study"})
