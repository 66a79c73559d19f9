"""A conversation as the model's chat template writes it, cut into what it is given and what it should answer.

The prompt before an answer is rendered exactly as at inference (with the generation prompt), whatever the template
writes in front of an answer that is already there: some published templates differ between the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vfl.errors import InputError
from vfl.models.encode import Message


@dataclass(frozen=True)
class Segment:
    """A stretch of the rendered conversation.

    Attributes:
        text: as rendered, one placeholder an image.
        images: the images that stand in it.
        answer: whether the assistant wrote it; then `text` begins with the answer and ends with the turn's closing.
        lead: for an answer, the generation prompt that stands before it: its tokens depend on what it follows.
    """

    text: str
    images: tuple[Any, ...] = ()
    answer: bool = False
    lead: str = ""


def cut_turns(
    processor: Any, messages: Sequence[Message], template: str | None = None, prompt_turns: int = 0
) -> list[Segment]:
    """Segments of a conversation whose images are in place; what follows the last answer is left out.

    Args:
        processor: with a chat template, unless `template` is given.
        messages: turns whose contents are text or lists of entries; image entries hold a PIL image.
        prompt_turns: the first turns that are given, answers among them included.

    Raises:
        InputError: for a conversation without an answer, an empty one, or a template that rewrites earlier turns.
    """
    segments: list[Segment] = []
    waiting: list[Any] = []  # images since the last answer
    done = ""  # what the segments so far stand for, as the template renders it
    before = _render(processor, messages[:0], template)
    for index, message in enumerate(messages):
        waiting += images_of(message)
        after = _render(processor, messages[: index + 1], template)
        if message["role"] == "assistant" and index >= prompt_turns:
            if waiting and images_of(message):
                raise InputError("An answer holds an image; models here answer in text. Leave such rows out.")
            prompt = _render(processor, messages[:index], template, generation=True)
            if not (after.startswith(before) and prompt.startswith(before) and before.startswith(done)):
                raise InputError(
                    "The chat template rewrites earlier turns when one is added, so the answers can't be told from the "
                    "prompt. Give another with chat_template, or keep one answer a row."
                )
            lead = prompt[len(before) :]
            answer = _answer(after[len(before) :], lead, text_of(message))
            segments.append(Segment(text=prompt[len(done) :], images=tuple(waiting)))
            segments.append(Segment(text=answer, answer=True, lead=lead))
            done, waiting = after, []
        before = after
    if not segments:
        raise InputError("A conversation without an answer has nothing to train on or to score.")
    return segments


def cut_bare(messages: Sequence[Message], placeholder: str) -> list[Segment]:
    """Segments for a model that was trained without a chat template: images, the question, the answer.

    Raises:
        InputError: for anything but one question and one answer.
    """
    roles = [message["role"] for message in messages]
    if roles != ["user", "assistant"]:
        raise InputError(f"This model takes one question and one answer a row, the turns here are {', '.join(roles)}.")
    images = tuple(images_of(messages[0]))
    question = Segment(text=placeholder * len(images) + text_of(messages[0]), images=images)
    return [question, Segment(text=_filled(text_of(messages[1])), answer=True)]


def images_of(message: Message) -> list[Any]:
    """The images of one turn, in order."""
    content = message["content"]
    return [] if isinstance(content, str) else [entry["image"] for entry in content if entry["type"] == "image"]


def text_of(message: Message) -> str:
    """The text of one turn."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return " ".join(entry["text"] for entry in content if entry["type"] == "text")


def _answer(turn: str, lead: str, content: str) -> str:
    """What the model should write after `lead`: the answer and the turn's closing."""
    _filled(content)
    if turn.startswith(lead):
        return turn[len(lead) :]
    # Published templates exist whose generation prompt differs from the head of a finished turn (LLaVA-OneVision).
    start = turn.rfind(content.strip())
    if start < 0:
        raise InputError("The chat template changes the text of answers. Give another with chat_template.")
    return turn[start:]


def _filled(content: str) -> str:
    if not content.strip():
        raise InputError("An answer is empty: there is nothing to train on or to score. Leave such rows out.")
    return content


def _render(processor: Any, messages: Sequence[Message], template: str | None, *, generation: bool = False) -> str:
    if not messages:
        return ""
    text: str = processor.apply_chat_template(
        [{"role": m["role"], "content": _entries(m)} for m in messages],
        chat_template=template or processor.chat_template,
        tokenize=False,
        add_generation_prompt=generation,
    )
    return text


def _entries(message: Message) -> list[dict[str, Any]]:
    content = message["content"]
    entries = [{"type": "text", "text": content}] if isinstance(content, str) else content
    # The template only asks whether there is an image; the pixels go to the image processor.
    return [{"type": "image"} if entry["type"] == "image" else dict(entry) for entry in entries]
