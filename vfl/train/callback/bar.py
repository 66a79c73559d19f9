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
        self._logged: dict[str, float] = {}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep the loss, and the reward of sampled answers; the rest is in metrics.jsonl."""
        self._logged |= {name: value for name, value in (logs or {}).items() if name in ("loss", "reward")}
        self._show()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move on by a step."""
        super().on_step_end(args, state, control, **kwargs)
        self._show()

    def _show(self) -> None:
        if self.training_bar is None:  # another rank than the first
            return
        shown = {name: f"{value:.3g}" for name, value in self._logged.items()}
        if self.evaluation is not None:
            shown |= {group: f"{100 * share:.0f}%" for group, share in self.evaluation.accuracies.items()}
        self.training_bar.set_postfix(shown)


def use_bar(trainer: Trainer, evaluation: EvaluationCallback | None = None) -> None:
    """Replace the trainer's own progress bar, if it has one (`disable_tqdm` leaves it out)."""
    plain_bar: TrainerCallback | None = trainer.pop_callback(ProgressCallback)
    if plain_bar is not None:
        trainer.add_callback(AccuracyBar(evaluation))
