"""A step whose gradient is not finite never reaches the weights.

One such step makes every adapted weight NaN, and Trainer goes on as if nothing had happened: it logs a loss of 0 and
rotates the checkpoints that were still good away.
"""

import logging
import math
from pathlib import Path
from typing import Any, Literal

from vfl.errors import InputError
from vfl.train.checkpoints import checkpoints

logger = logging.getLogger(__name__)

OnNan = Literal["stop", "skip"]
# A gradient scaler (float16) meets overflows on purpose while it looks for its scale, and skips those steps itself.
SCALER_TRIES = 20


class FiniteSteps:
    """A mixin for HF Trainers (named before them among the bases): looks at the gradient's norm before each step.

    Attributes:
        on_nan: "stop" ends the run with an InputError, every rank alike; "skip" leaves the step out.
        skipped: steps that were left out.
    """

    on_nan: OnNan = "stop"
    skipped = 0
    _in_a_row = 0

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Trainer asks for the norm between clipping and the optimizer's step; it is equal on all ranks."""
        norm = super()._get_grad_norm(model, grad_norm)  # type: ignore[misc]
        if norm is None or math.isfinite(float(norm)):
            self._in_a_row = 0
            return norm
        self._in_a_row += 1
        scaler = getattr(self.accelerator, "scaler", None)  # type: ignore[attr-defined]
        if scaler is not None and self._in_a_row <= SCALER_TRIES:
            return norm
        step = self.state.global_step + 1  # type: ignore[attr-defined]
        if self.on_nan == "skip":
            self.skipped += 1
            logger.warning("step %d has a gradient of norm %s and is left out (%d so far)", step, norm, self.skipped)
            # Without gradients the optimizer changes nothing, not even by weight decay.
            model.zero_grad(set_to_none=True)
            return norm
        raise InputError(self._what_happened(step, float(norm)))

    def _what_happened(self, step: int, norm: float) -> str:
        args = self.args  # type: ignore[attr-defined]
        kept = checkpoints(Path(args.output_dir))
        where = (
            f"The last checkpoint, {kept[-1]}, holds finite weights; --resume goes on from it."
            if kept
            else "No checkpoint was written before it."
        )
        half = " and dtype: bfloat16 or float32 instead of float16" if args.fp16 else ""
        return (
            f"Training stopped at step {step}: the gradient's norm is {norm}, so the step would have made the weights "
            f"useless. {where} Try a lower trainer.learning_rate (now {args.learning_rate:g}), more "
            f"trainer.warmup_steps, trainer.max_grad_norm: 1{half}; or leave such steps out with on_nan: skip."
        )
