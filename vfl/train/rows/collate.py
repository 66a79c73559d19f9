"""Rows to batches, in the data loader's workers: images are decoded and processed where the GPU does not wait."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from vfl.data.cell import ContainerError
from vfl.data.sample import Message
from vfl.errors import InputError
from vfl.models.conversation import ConversationBatch, ConversationEncoder
from vfl.train.rows.starts import starts_of
from vfl.train.rows.table import ANCHOR, conversation
from vfl.train.rows.weights import learned

Row = dict[str, Any]


class Collator:
    """Batches for `SFTTrainer`: labels are the tokens of answers that have a weight, -100 elsewhere.

    Where the training set has anchors, `anchors` (B,) says which rows are, by number; -1 for the others.

    Args:
        encoder: of the model.
        starts: add `starts` (B,), the token after the image, for a backward pass from there (`backward: after_image`).
        show_always: give a batch without any image a further row with a blank one, outside the loss, so that the vision
            tower runs on every rank (under ZeRO-3 all ranks gather its weights together, or wait for ever).
    """

    def __init__(self, encoder: ConversationEncoder, *, show_always: bool = False, starts: bool = False) -> None:
        self.encoder = encoder
        self.show_always = show_always
        self.starts = starts

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        batch = self._encode([opened(row) for row in rows], [row["prompt"] for row in rows])
        labels = batch.inputs["input_ids"].masked_fill(~learned(batch, rows), -100)
        tensors = {**batch.inputs, "labels": labels} | self._starts(batch)
        if ANCHOR not in rows[0]:
            return tensors
        anchors = torch.full((len(labels),), -1)  # a blank row that was added is none
        anchors[: len(rows)] = torch.tensor([row[ANCHOR] for row in rows])
        return tensors | {"anchors": anchors}

    def _starts(self, batch: ConversationBatch) -> dict[str, torch.Tensor]:
        if not self.starts:
            return {}
        return {"starts": starts_of(batch.inputs["input_ids"], batch.answers, self.encoder.image_token_id)}

    def _encode(self, conversations: list[list[Message]], prompts: list[int]) -> ConversationBatch:
        added = self.show_always and not any(map(_shows, conversations))
        if added:
            conversations, prompts = [*conversations, _blank_row()], [*prompts, 0]
        batch = self.encoder.encode(conversations, prompts)
        if added:
            batch.answers[-1] = False
        return batch


class PreferenceCollator(Collator):
    """Batches for `DPOTrainer`: the chosen rows, then the rejected ones, with the mask of the answers that differ.

    No blank image here (`show_always`): a further row would be half of a pair.
    """

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        turns = [opened(row, rejected=which) for which in (False, True) for row in rows]
        prompts = [row["prompt"] for row in rows] * 2
        batch = self.encoder.encode(turns, prompts)
        return {**batch.inputs, "completion_mask": batch.answers.long()} | self._starts(batch)


class LabelCollator(Collator):
    """Batches for `KTOTrainer`: the mask of each row's answer, and whether it is good.

    `KL_...` is the same with the answer of another row of the batch, from which TRL estimates how far the model has
    moved from its reference. No blank image here (`show_always`): a further row would have no label.
    """

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        turns = [opened(row) for row in rows]
        prompts = [row["prompt"] for row in rows]
        batch = self.encoder.encode(turns, prompts)
        others = [[*asked[:-1], said[-1]] for asked, said in zip(turns, [turns[-1], *turns[:-1]], strict=True)]
        mismatched = self.encoder.encode(others, prompts)
        tokens = {
            f"KL_{name}": value
            for name, value in mismatched.inputs.items()
            if name in ("input_ids", "attention_mask") or name.endswith("token_type_ids")
        }
        return {
            **batch.inputs,
            "completion_mask": batch.answers.long(),
            **tokens,
            "KL_completion_mask": mismatched.answers.long(),
            "label": torch.tensor([row["label"] for row in rows]),
        }


def opened(row: Row, *, rejected: bool = False) -> list[Message]:
    """A row's turns with their images.

    Raises:
        InputError: for an image that can't be read any more; names the row.
        ContainerError: for the file that it lies in.
    """
    try:
        return conversation(row, rejected=rejected)
    except InputError as error:
        kind = ContainerError if isinstance(error, ContainerError) else InputError
        raise kind(f"{row['where']} ({row['uid']}): {error}") from error


def _shows(messages: list[Message]) -> bool:
    return any(entry["type"] == "image" for message in messages for entry in message["content"])


def _blank_row() -> list[Message]:
    image = Image.new("RGB", (64, 64), "white")
    question = [{"type": "image", "image": image}, {"type": "text", "text": "?"}]
    answer = [{"type": "text", "text": "."}]
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
