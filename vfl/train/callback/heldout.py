"""The loss of rows that are not trained on, measured as the training loss is: per answer token, or per pair."""

from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from vfl.engine.untouched import untouched
from vfl.models.vlm import VLM


class HeldOutLoss(TrainerCallback):
    """Measures it every so many steps, and at the end; every process measures all rows.

    Args:
        trainer: whose collator and loss are used.
        vlm: its model.
        rows: as `vfl.train.rows.prepare` gives them.
        every: steps between measurements; None for only at the end.
        send: takes {"eval_loss": ...} to the loggers, metrics.jsonl among them.

    Attributes:
        loss: the last one.
    """

    def __init__(
        self,
        trainer: Any,
        vlm: VLM,
        rows: Dataset,
        every: int | None,
        send: Callable[[dict[str, float]], None],
    ) -> None:
        self.trainer, self.vlm, self.rows, self.every, self.send = trainer, vlm, rows, every, send
        self.loss = float("nan")
        self._measured_at: int | None = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure every so many steps."""
        if self.every is not None and state.global_step % self.every == 0:
            self._measure(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the final model."""
        if self._measured_at != state.global_step:
            self._measure(state)

    def measure_again(self) -> None:
        """The model was changed without a step."""
        self._measured_at = None

    def _measure(self, state: TrainerState) -> None:
        size = self.trainer.args.per_device_train_batch_size
        total = weight = 0.0
        with untouched(self.vlm), torch.no_grad():
            self.trainer.model.eval()
            for start in range(0, len(self.rows), size):
                rows = [self.rows[n] for n in range(start, min(start + size, len(self.rows)))]
                batch = self.trainer._prepare_inputs(self.trainer.data_collator(rows))
                # The first position is predicted by nothing.
                count = int((batch["labels"][:, 1:] != -100).sum()) if "labels" in batch else len(rows)
                with self.trainer.compute_loss_context_manager():
                    total += count * float(self.trainer.compute_loss(self.trainer.model, batch))
                weight += count
        self.trainer._metrics["eval"].clear()  # TRL's means of what it saw in these rows
        self.loss, self._measured_at = total / weight, state.global_step
        if state.is_world_process_zero:
            self.send({"eval_loss": self.loss})
