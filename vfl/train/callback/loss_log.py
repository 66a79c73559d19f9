"""What the trainer logs (loss, learning rate, the gradient's norm) in metrics.jsonl, for runs that evaluate nothing."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from vfl.train.callback.metrics_log import MetricsLog


class LossLog(TrainerCallback):
    """Writes the trainer's own numbers; `EvaluationCallback` writes them beside its own.

    Args:
        path: of metrics.jsonl.
    """

    def __init__(self, path: Path) -> None:
        self.metrics_log = MetricsLog(path)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take up an interrupted run's lines."""
        if state.is_world_process_zero:
            self.metrics_log.start(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """One line."""
        if state.is_world_process_zero and logs:
            self.metrics_log.append(state.global_step, state.epoch, "train", dict(logs))
