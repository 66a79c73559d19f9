"""Rows whose answers are sampled: the question for `GRPOTrainer`, and the right answer that they are compared with."""

from collections.abc import Sequence
from typing import Any

from vfl.errors import InputError
from vfl.evaluate.batches import Shown
from vfl.evaluate.right_answers import PLACES, RightAnswer
from vfl.models.conversation import ConversationEncoder
from vfl.models.turns import images_of
from vfl.train.grpo.rewards import Asked
from vfl.train.rows.audited import refuse_control
from vfl.train.rows.table import answers_of, conversation

Row = dict[str, Any]


class QuestionCollator:
    """Questions as GRPOTrainer takes them: turns with their images in place, and what answers are judged by.

    A row that comes several times in a batch, once for each answer that is sampled to it, is opened once.

    Args:
        encoder: of the model.
    """

    def __init__(self, encoder: ConversationEncoder) -> None:
        self.encoder = encoder

    def __call__(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        opened: dict[tuple[str, str], dict[str, Any]] = {}
        for row in rows:
            if _key(row) not in opened:
                opened[_key(row)] = self._question(row)
        return [dict(opened[_key(row)]) for row in rows]

    def _question(self, row: Row) -> dict[str, Any]:
        turns = conversation(row)[: row["prompt"]]
        return {"prompt": turns, "asked": Asked(expected(row), self._shown(row, turns))}

    def _shown(self, row: Row, turns: Sequence[dict[str, Any]]) -> Shown | None:
        if row["match"] not in PLACES:
            return None
        (image,) = [image for turn in turns for image in images_of(turn)]
        processor = self.encoder.processor.image_processor
        grid = processor(images=[image], return_tensors="pt").get("image_grid_thw")
        # As `VLM.model_sizes` has it: only where the processor counts patches do boxes depend on what it resized to.
        resized = image.size if grid is None else (int(grid[0, 2]), int(grid[0, 1]))
        if grid is not None:
            resized = (resized[0] * processor.patch_size, resized[1] * processor.patch_size)
        return Shown((image.size,), (resized,))


def _key(row: Row) -> tuple[str, str]:
    return row["uid"], row["where"]


def expected(row: Row) -> RightAnswer:
    """A row's right answer."""
    (text,) = answers_of(row)
    return RightAnswer(text.strip(), row["match"])


def measured(row: Row, encoder: ConversationEncoder) -> tuple[int, int]:
    """Tokens of text and of images in a row's question.

    Raises:
        InputError: for control tokens or media tags in a text.
    """
    refuse_control(row["messages"], encoder)
    batch = encoder.encode([conversation(row)], [row["prompt"]])
    start = int(batch.answers[0].int().argmax())
    image = int((batch.inputs["input_ids"][0, :start] == encoder.image_token_id).sum())
    return start - image, image


def check_encoder(encoder: ConversationEncoder) -> None:
    """Raise InputError for a model that GRPO can't ask."""
    if encoder.family.prefix_lm:
        raise InputError(
            f"{encoder.family.name} reads its question in both directions, and TRL's GRPO does not tell it where a "
            "sampled answer begins: use method: sft or dpo."
        )
    if encoder.template is None and encoder.processor.chat_template is None:
        raise InputError(
            f"method: grpo writes questions by a chat template, and {encoder.family.name} has none: give one with "
            "chat_template, or use method: sft."
        )
