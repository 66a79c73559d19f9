"""Checkpoints that are whole or not there: written beside the others under another name, then renamed."""

import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

WRITING = ".writing"
STATE = "trainer_state.json"
_NAME = re.compile(r"checkpoint-(\d+)")


class WholeCheckpoints:
    """A mixin for HF Trainers (named before them among the bases): a killed run leaves only complete checkpoints."""

    _writing: Path | None = None

    def _get_output_dir(self, trial: Any) -> str:
        """Where Trainer puts checkpoint-N while it writes it, and where it looks for others otherwise."""
        return str(self._writing) if self._writing else super()._get_output_dir(trial)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        args, state = self.args, self.state  # type: ignore[attr-defined]
        folder = Path(args.output_dir)
        name = f"checkpoint-{state.global_step}"
        self._writing = folder / WRITING
        try:
            if args.should_save:
                shutil.rmtree(self._writing, ignore_errors=True)
            _wait()
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        finally:
            written, self._writing = self._writing, None
        _wait()  # every rank has written its part
        if state.best_model_checkpoint and Path(state.best_model_checkpoint).parent == written:
            state.best_model_checkpoint = str(folder / Path(state.best_model_checkpoint).name)
        if args.should_save:
            _correct_best(written / name / STATE, state.best_model_checkpoint)
            _sync(written / name)
            target = folder / name
            if target.exists():  # the same step again, after the run was resumed from an earlier one
                os.replace(target, written / "replaced")
            os.replace(written / name, target)
            _rotate(folder, written, args.save_total_limit, state.best_model_checkpoint)
            shutil.rmtree(written, ignore_errors=True)
        _wait()


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest step first."""
    numbered = [(int(name[1]), path) for path in folder.glob("checkpoint-*") if (name := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(numbered) if (path / STATE).is_file()]


def clear_leftovers(*folders: Path) -> None:
    """Remove what a killed process was about to rename: unfinished checkpoints, temporary files and folders."""
    for folder in folders:
        for left in (folder / WRITING, *folder.glob(".*.tmp"), *folder.glob(".*.old")):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)


def _rotate(folder: Path, writing: Path, limit: int | None, best: str | None) -> None:
    """Remove the oldest beyond `limit`, never the newest or the best; moved away first: none is seen in part."""
    kept = checkpoints(folder)
    if not limit or len(kept) <= limit:
        return
    protected = {kept[-1].name, Path(best).name if best else ""}
    for path in [path for path in kept if path.name not in protected][: len(kept) - limit]:
        os.replace(path, writing / f"old-{path.name}")


def _correct_best(state_file: Path, best: str | None) -> None:
    content = json.loads(state_file.read_text(encoding="utf-8"))
    if content["best_model_checkpoint"] != best:
        content["best_model_checkpoint"] = best
        state_file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _sync(folder: Path) -> None:
    """Bytes on the disk before the name is."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as handle:
                os.fsync(handle.fileno())


def _wait() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
