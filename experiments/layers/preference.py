"""Preference pairs in the fast loop: what `method: dpo` does in `vfl train`, alone or with the loss of SFT added.

    sigmoid      mean over pairs of -log sigmoid(beta (chosen - rejected)), each the answer's log-probability over what
                 the model gave it before training (arXiv 2305.18290)
    sigmoid_sft  the same plus the mean loss over the chosen answers' tokens: TRL's `loss_type: [sigmoid, sft]`

A test compares the losses of both with those of `vfl train`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch.nn.functional import cross_entropy, logsigmoid

from experiments.layers.loop import ROWS_AT_ONCE, Row, encode, predictions
from vfl.data import read
from vfl.models.vlm import VLM
from vfl.train.rows.table import write_rows

BETA = 0.1  # TRL's default
PairLoss = Literal["sigmoid", "sigmoid_sft"]


@dataclass(frozen=True)
class Pair:
    """A chosen and a rejected answer to one question.

    Attributes:
        reference: log-probability of the chosen answer less that of the rejected one, before training.
    """

    chosen: Row
    rejected: Row
    reference: float


def pairs_of(vlm: VLM, folder: Path) -> list[Pair]:
    """The preference rows of a folder as pairs; `vlm` is the model before training."""
    table = write_rows(read(folder), folder / "rows.arrow")  # type: ignore[arg-type]
    rows = [table[n] for n in range(len(table))]
    sides = list(zip(encode(vlm, rows), encode(vlm, rows, rejected=True), strict=True))
    pairs = []
    with torch.no_grad():
        for start in range(0, len(sides), ROWS_AT_ONCE):
            some = sides[start : start + ROWS_AT_ONCE]
            chosen, rejected, _ = answers(vlm, some)
            differences = (chosen - rejected).tolist()
            pairs += [Pair(*rows, reference) for rows, reference in zip(some, differences, strict=True)]
    return pairs


def answers(vlm: VLM, sides: Sequence[tuple[Row, Row]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities of the chosen and of the rejected answers, and the mean loss over the chosen ones' tokens."""
    count = len(sides)
    rows = [chosen for chosen, _ in sides] + [rejected for _, rejected in sides]
    logits, tokens, row = predictions(vlm, rows)
    losses = cross_entropy(logits, tokens, reduction="none")
    sums = losses.new_zeros(2 * count).index_add(0, row, -losses)
    return sums[:count], sums[count:], losses[row < count].mean()


def pair_loss(kind: PairLoss) -> Callable[[VLM, Sequence[Pair]], torch.Tensor]:
    """The loss of some pairs, for `fit`."""
    return partial(_loss, sft=1.0 if kind == "sigmoid_sft" else 0.0)


def _loss(vlm: VLM, pairs: Sequence[Pair], sft: float) -> torch.Tensor:
    chosen, rejected, of_chosen = answers(vlm, [(pair.chosen, pair.rejected) for pair in pairs])
    reference = torch.tensor([pair.reference for pair in pairs], device=chosen.device)
    return -logsigmoid(BETA * (chosen - rejected - reference)).mean() + sft * of_chosen
