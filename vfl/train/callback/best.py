"""The best step of a run by held-out loss or by accuracy: its weights become the result, and training may stop early.

out/best/history.json          [[step, value], ...] of every step that was judged; larger is better
out/best/weights.safetensors   the trained tensors of the best one
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from vfl.io.atomic import replacing
from vfl.io.json_files import write_json
from vfl.train.trainers import trained_state

logger = logging.getLogger(__name__)
BEST = "best"


class BestStep(TrainerCallback):
    """Judges the model every so many steps; add it behind what measures, and `TakeBest` before that.

    Args:
        model: the trainer's, with its adapter.
        folder: for history and weights.
        every: steps between judgements.
        value: what is judged by, at this step; larger is better, and equal on all ranks.
        patience: judgements in a row without a better one, after which training stops; None to go on to the end.
    """

    def __init__(
        self, model: torch.nn.Module, folder: Path, every: int, value: Callable[[], float], patience: int | None
    ) -> None:
        self.model, self.folder, self.every, self.value, self.patience = model, folder, every, value, patience
        self.history: list[tuple[int, float]] = []

    @property
    def best(self) -> tuple[int, float] | None:
        """The first of the best steps so far, and its value."""
        return max(self.history, key=lambda judged: (judged[1], -judged[0]), default=None)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take up an interrupted run's history. Weights of a later step stay: that step will be the best again."""
        file = self.folder / "history.json"
        if state.global_step > 0 and file.is_file():
            judged = [(int(step), float(value)) for step, value in json.loads(file.read_text(encoding="utf-8"))]
            self.history = [(step, value) for step, value in judged if step <= state.global_step]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Judge, keep the weights if they are the best so far, stop if there was none for too long."""
        step = state.global_step
        if step % self.every or any(step == judged for judged, _ in self.history):
            return
        self.history.append((step, self.value()))
        assert self.best is not None
        if self.best[0] == step:
            weights = trained_state(self.model)
            if state.is_world_process_zero:
                with replacing(self.folder / "weights.safetensors") as temporary:
                    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, temporary)
        if state.is_world_process_zero:
            write_json(self.folder / "history.json", self.history)
        waited = sum(judged > self.best[0] for judged, _ in self.history)
        if self.patience is not None and waited >= self.patience:
            logger.warning("no better step in %d evaluations: training stops at step %d", waited, step)
            control.should_training_stop = True


class TakeBest(TrainerCallback):
    """At the end, the best step's weights take the place of the last one's.

    Args:
        judge: knows the best.
        taken: called when weights were put in place, so that what was measured of the last step is measured anew.
    """

    def __init__(self, judge: BestStep, taken: Callable[[], None]) -> None:
        self.judge, self.taken = judge, taken

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put them in place."""
        best = self.judge.best
        if best is None or best[0] == state.global_step:
            return
        logger.info("the best step was %d (%.4g): its weights are the result", *best)
        weights = load_file(self.judge.folder / "weights.safetensors")
        parameters = dict(self.judge.model.named_parameters())
        with torch.no_grad():
            for name, tensor in weights.items():
                parameters[name].copy_(tensor)
        self.taken()
