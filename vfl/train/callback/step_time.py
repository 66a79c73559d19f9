"""How long a step takes: the median over a run, without what is measured between steps, as a line of metrics.jsonl."""

import time
from pathlib import Path
from statistics import median
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from vfl.train.callback.metrics_log import MetricsLog

STEP_SECONDS = "step_seconds"


class StepTime(TrainerCallback):
    """Times every step; add it before what measures at a step's end.

    Args:
        path: of metrics.jsonl.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = 0.0
        self._seconds: list[float] = []

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock; the rows of the step are there already."""
        self._start = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop it."""
        self._seconds.append(time.perf_counter() - self._start)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the median; a resumed run's is of the steps since."""
        if self._seconds and state.is_world_process_zero:
            values = {STEP_SECONDS: median(self._seconds)}
            MetricsLog(self.path).append(state.global_step, state.epoch, "train", values)
