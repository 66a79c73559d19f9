"""A resumed run begins where its checkpoint says, or not at all."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from vfl.errors import InputError


class BeganThere(TrainerCallback):
    """Compares the step that training begins at with the one in the checkpoint's name; add it before others.

    Args:
        checkpoint: what is resumed from; None for a run from the beginning.
    """

    def __init__(self, checkpoint: Path | None) -> None:
        self.checkpoint = checkpoint

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """State, optimizer and scheduler have been loaded.

        Raises:
            InputError: for another step.
        """
        expected = 0 if self.checkpoint is None else int(self.checkpoint.name.rpartition("-")[2])
        if state.global_step != expected:
            raise InputError(
                f"The run was to begin at step {expected} ({self.checkpoint or 'no checkpoint'}), and began at step "
                f"{state.global_step}: the checkpoint is not what its name says, or was changed while it was read. "
                "Nothing was trained. Remove this checkpoint; --resume then takes the one before it."
            )
