"""lmms-eval's requests as items, and back: what a task asks, with its pictures, its bound and its stop strings."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import Image

from vfl.data.turns import MARK
from vfl.errors import InputError
from vfl.evaluate.items import EvalItem
from vfl.models.vlm import VLM

logger = logging.getLogger(__name__)
# Every task gets this one unless it says otherwise, and it would cut answers of several paragraphs. Most of lmms-eval's
# own models do not stop at it either.
NOT_A_STOP = "\n\n"
GREEDY = ("do_sample", "temperature", "top_p", "top_k", "num_beams")
_told: set[str] = set()


@dataclass(frozen=True)
class Stops:
    """Where an answer ends before its end token.

    Attributes:
        max_new_tokens: bound on the answer, or None where the task sets none.
        until: stop strings, which are not part of the answer.
    """

    max_new_tokens: int | None
    until: tuple[str, ...]

    def cut(self, text: str) -> str:
        """The answer up to its first stop string."""
        for stop in self.until:
            text = text.split(stop, 1)[0]
        return text.strip()


def stops_of(generation: Mapping[str, Any]) -> Stops:
    """A task's `generation_kwargs`.

    Raises:
        InputError: for sampling or beams: answers are the model's greedy ones.
    """
    temperature = float(generation.get("temperature") or 0)
    if generation.get("do_sample", temperature > 0) or int(generation.get("num_beams") or 1) > 1:
        asked = ", ".join(f"{name}={generation[name]}" for name in GREEDY if generation.get(name) is not None)
        raise InputError(
            f"The task asks for {asked}, and answers under a plan are greedy. Turn that off with --gen_kwargs "
            "do_sample=False,temperature=0,num_beams=1, and say so beside the numbers."
        )
    if unread := sorted(set(generation) - {*GREEDY, "until", "max_new_tokens"} - _told):
        _told.update(unread)
        logger.warning("generation_kwargs that change nothing here: %s", ", ".join(unread))
    until = generation.get("until") or []
    wanted = [until] if isinstance(until, str) else list(until)
    bound = generation.get("max_new_tokens")
    return Stops(None if bound is None else int(bound), tuple(stop for stop in wanted if stop and stop != NOT_A_STOP))


def item_of(
    vlm: VLM, name: str, task: str, context: str, visuals: Sequence[Any] | None, max_new_tokens: int
) -> EvalItem:
    """A question, its pictures where the context has marks (`<image>`), or before the text where it has none.

    Args:
        vlm: the model that is asked.
        name: of the item.
        task: of lmms-eval.
        context: the question, few-shot examples and description included.
        visuals: what the task's `doc_to_visual` gave.
        max_new_tokens: bound on the answer.

    Raises:
        InputError: for videos and sounds, or marks that are not as many as the pictures.
    """
    pictures = list(visuals or [])
    if other := [type(visual).__name__ for visual in pictures if not isinstance(visual, Image.Image)]:
        raise InputError(
            f"Task {task}, {name}: a {other[0]} was given where a picture is expected. Tasks with videos or sounds "
            "can't be run under a plan."
        )
    if vlm.medium.name != "image":
        raise InputError(f"{vlm.model_id} hears sounds, and task {task} shows pictures. Give a model that sees.")
    texts = context.split(MARK) if pictures else [context]
    marks = len(texts) - 1
    if marks not in (0, len(pictures)):
        raise InputError(
            f"Task {task}, {name}: its text has {marks} marks {MARK}, and there are {len(pictures)} pictures. Expected "
            "one mark for each, or none."
        )
    places: list[dict[str, str]] = []
    if not marks:
        places = [{"type": "image"} for _ in pictures]
    for number, text in enumerate(texts):
        if number:
            places.append({"type": "image"})
        if text.strip():
            places.append({"type": "text", "text": text.strip() if marks else text})
    return EvalItem(
        id=name,
        group=task,
        messages=({"role": "user", "content": places},),
        images=tuple(partial(vlm.medium.open, picture) for picture in pictures),
        expected="",
        match="exact",
        max_new_tokens=max_new_tokens,
    )
