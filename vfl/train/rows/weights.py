"""Weights of answer tokens in training: which tokens the loss is a mean over."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vfl.data.token_weights import TOKEN_WEIGHTS, answer_hash
from vfl.errors import InputError
from vfl.models.conversation import ConversationBatch
from vfl.train.data_config import DataConfig

logger = logging.getLogger(__name__)


class OtherTokensError(InputError):
    """Weights belong to other tokens than the model's."""


def check_weights(row: dict[str, Any], batch: ConversationBatch) -> None:
    """Raise InputError unless a row's weights are those of its answers' tokens, of which one counts.

    Args:
        batch: the row, encoded.
    """
    if row["weights"] is None:
        return
    ids = batch.inputs["input_ids"][batch.answers].numpy()
    if answer_hash(ids) != row["weighed"] or len(ids) != len(row["weights"]):
        raise OtherTokensError(
            "its token weights were made for other tokens than this model's tokenizer and chat template make of its"
            " answers: weigh by scores of this model, or leave data.token_weights out"
        )
    if not any(row["weights"]):
        raise InputError("none of its answers' tokens has a weight, so that it teaches nothing")


def learned(batch: ConversationBatch, rows: Sequence[dict[str, Any]]) -> torch.Tensor:
    """(B, T) the answer tokens that the loss is a mean over: all of a row without weights, else those with weight 1.

    Args:
        rows: the batch's first ones; what comes after them has no weights.
    """
    kept = batch.answers.clone()
    for number, row in enumerate(rows):
        if row["weights"] is not None:
            kept[number, batch.answers[number]] = torch.tensor(list(row["weights"]), dtype=torch.bool)
    return kept


def warn_of_unused(config: DataConfig) -> None:
    """Warn where a file of weights lies beside data that is trained on without."""
    if config.token_weights is not None:
        return
    for path in [path for source in config.train for path in source.path]:
        for folder in (path.parent, path.parent.parent):
            beside: Path = folder / TOKEN_WEIGHTS
            if beside.is_file():
                logger.warning("%s is not used: set data.token_weights=%s to train on its tokens alone", beside, beside)
                return
