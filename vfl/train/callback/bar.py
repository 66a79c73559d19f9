"""The progress bar of a training run: the loss and the accuracies stand behind it instead of scrolling by."""

from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ProgressCallback

from vfl.train.callback.evaluation import EvaluationCallback


class AccuracyBar(ProgressCallback):
    """Transformers' progress bar with the last loss and the last accuracy of each group."""

    def __init__(self, evaluation: EvaluationCallback | None = None) -> None:
        super().__init__()
        self.evaluation = evaluation
        self._loss: float | None = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep the loss; the rest is in metrics.jsonl."""
        self._loss = (logs or {}).get("loss", self._loss)
        self._show()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move on by a step."""
        super().on_step_end(args, state, control, **kwargs)
        self._show()

    def _show(self) -> None:
        if self.training_bar is None:  # another rank than the first
            return
        shown = {} if self._loss is None else {"loss": f"{self._loss:.3g}"}
        if self.evaluation is not None:
            shown |= {group: f"{100 * share:.0f}%" for group, share in self.evaluation.accuracies.items()}
        self.training_bar.set_postfix(shown)


def use_bar(trainer: Trainer, evaluation: EvaluationCallback | None = None) -> None:
    """Replace the trainer's own progress bar, if it has one (`disable_tqdm` leaves it out)."""
    plain_bar: TrainerCallback | None = trainer.pop_callback(ProgressCallback)
    if plain_bar is not None:
        trainer.add_callback(AccuracyBar(evaluation))
