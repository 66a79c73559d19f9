"""Rewards that need no judge: a sampled answer against the row's right one, as evaluations compare them.

right      1 where the answer is right by the row's match kind (vfl/probes/match.py), else 0
readable   1 where it can be read as that kind (a number, yes or no, a letter, a box, a point), else 0
iou        intersection over union with the right box, 0 where no box can be read; rows of other kinds have none
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vfl.evaluate.batches import Shown
from vfl.evaluate.right_answers import PLACES, RightAnswer
from vfl.models.families import Family
from vfl.probes import match
from vfl.probes.asking import in_pixels
from vfl.train.grpo.config import RewardPart


@dataclass(frozen=True)
class Asked:
    """What an answer is judged by.

    Attributes:
        answer: the right one.
        shown: sizes of the image, for boxes and points.
    """

    answer: RightAnswer
    shown: Shown | None = None


def reward_of(part: RewardPart, asked: Asked, text: str, family: Family) -> float | None:
    """One part of the reward of an answer; None where the part does not apply.

    Args:
        text: what the model said, without control tokens.
        family: whose way of writing boxes and points the answer follows.
    """
    kind = asked.answer.match
    if part == "iou" and kind != "box":
        return None
    if kind in PLACES:
        assert asked.shown is not None, "rows about places come with the size of their image"
        text = in_pixels(family, kind, text, asked.shown)
    text = text.strip()
    if part == "right":
        return float(asked.answer.correct(text, asked.shown.image_sizes[0] if asked.shown else None))
    if part == "readable":
        return float(bool(match.said(text)) if kind == "exact" else match.read(kind, text) is not None)
    said, right = match.read("box", text), asked.answer.box
    return match.iou(said, right) if isinstance(said, tuple) and right is not None else 0.0  # type: ignore[arg-type]


def reward_functions(parts: Sequence[RewardPart], family: Family) -> list[Callable[..., list[float | None]]]:
    """One function for each part, as GRPOTrainer calls them; TRL logs each under its name."""
    return [_function(part, family) for part in parts]


def _function(part: RewardPart, family: Family) -> Callable[..., list[float | None]]:
    def rewards(completions: Sequence[Any], asked: Sequence[Asked], **others: Any) -> list[float | None]:
        texts = [message["content"] for (message,) in completions]
        return [reward_of(part, each, text, family) for each, text in zip(asked, texts, strict=True)]

    rewards.__name__ = part
    return rewards
