"""That two contenders computed the same thing, before any number of theirs is shown."""

import torch

from bench.swapping.model import Answers, Task
from vfl.loading.checks import tolerance

# In float32 a near-tie of two words may fall either way and the rest of that answer with it.
LEAST_EQUAL = {torch.float64: 1.0, torch.float32: 0.9}


class UnequalError(RuntimeError):
    """Two contenders that should agree do not: none of their numbers means anything."""


def difference(name: str, answers: Answers, reference: Answers, task: Task) -> float:
    """Largest difference from the reference in the logits of the first answer token.

    Raises:
        UnequalError: where it exceeds the rounding of one forward, or answers differ.
    """
    largest = float((answers.logits - reference.logits).abs().max())
    allowed = tolerance(task.vlm, reference.logits)
    if not largest <= allowed:
        raise UnequalError(
            f"The logits of {name} differ from those of the hooks by {largest:.3g} (at most {allowed:.3g})."
        )
    equal, rows = num_equal(answers, reference), len(reference.token_ids)
    if equal < LEAST_EQUAL.get(task.vlm.dtype, 0.0) * rows:
        raise UnequalError(f"Only {equal} of {rows} answers of {name} equal those of the hooks.")
    return largest


def num_equal(answers: Answers, reference: Answers) -> int:
    """Rows with the same answer."""
    return sum(a == b for a, b in zip(answers.token_ids, reference.token_ids, strict=True))


def median_effect(answers: Answers) -> float:
    """What swapping one layer changes: the largest change of a logit, median over layers."""
    changes = (answers.logits[1:-1] - answers.logits[0]).abs().amax(dim=1)
    return float(changes.median())
