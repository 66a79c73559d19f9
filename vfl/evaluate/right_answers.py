"""The right answer of a data set's row, and whether what a model says is it: for evaluations and for rewards alike."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vfl.errors import InputError
from vfl.models.encode import Message
from vfl.probes import match
from vfl.probes.match import NUMBER_WORDS, Box, MatchKind

DataMatch = Literal["auto", "number", "yesno", "text", "letter", "exact"]
RowMatch = Literal["auto", "number", "yesno", "text", "letter", "exact", "box", "point"]
AnswerKind = MatchKind | Literal["exact"]
PLACES = ("box", "point")
_WHOLE_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_EXPECTED = {
    "box": ' (expected "[x0, y0, x1, y1]" in pixels of the file)',
    "point": ' (expected "[x, y]", or the box "[x0, y0, x1, y1]" that it must lie in, in pixels of the file)',
}


@dataclass(frozen=True)
class RightAnswer:
    """What a row's answer is compared with.

    Attributes:
        text: the right answer; boxes and points in pixels of the file. For a point it may be the box it must lie in.
        match: how answers are compared; "exact" is equality but for the spaces around.
    """

    text: str
    match: AnswerKind

    def correct(self, answer: str, image_size: tuple[int, int] | None = None) -> bool:
        """Whether an answer is right.

        Args:
            answer: boxes and points in pixels of the file.
            image_size: (width, height) of the file, for a point whose box is not known.
        """
        if self.match == "exact":
            return answer.strip() == self.text.strip()
        if self.match == "point" and (box := self.box) is not None:
            middle = f"[{(box[0] + box[2]) / 2}, {(box[1] + box[3]) / 2}]"
            return match.same("point", answer, middle, box=box)
        return match.same(self.match, answer, self.text, image_size=image_size)

    @property
    def box(self) -> Box | None:
        """The right answer as a box, where it is one."""
        box = match.read("box", self.text) if self.match in PLACES else None
        if not isinstance(box, tuple):
            return None
        x0, y0, x1, y1 = (float(edge) for edge in box)
        return x0, y0, x1, y1

    @property
    def readable(self) -> bool:
        """Whether the right answer itself can be read as its kind."""
        return self.match == "exact" or self.box is not None or match.read(self.match, self.text) is not None


def right_answer(messages: Sequence[Message], kind: RowMatch, images: int) -> RightAnswer:
    """The right answer of a row: its last assistant turn.

    Args:
        messages: the row's turns.
        kind: how answers are compared. "auto" reads the right answer: a number is compared as one, yes and no too, the
            letter of a choice that the question lists as one, everything else by its words (vfl/probes/match.py), and
            what has no words by equality. Boxes and points are never guessed.
        images: how many images the row has.

    Raises:
        InputError: for a row that does not end with an answer, or whose answer is empty or can't be read.
    """
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise InputError(
            "the last turn must be the assistant's right answer, after a user's turn; got "
            f"{', '.join(turn['role'] for turn in messages) or 'no turns'}. Leave such rows out."
        )
    expected = _text_of(messages[-1]).strip()
    if not expected:
        raise InputError("the last assistant turn is empty, so no answer can be right.")
    answer = RightAnswer(expected, _kind_of(expected, _text_of(messages[-2])) if kind == "auto" else kind)
    if not answer.readable:
        raise InputError(
            f"the right answer {expected!r} can't be read as {answer.match!r}{_EXPECTED.get(answer.match, '')}. "
            "Use match: auto, or exact."
        )
    if answer.match in PLACES and images != 1:
        raise InputError(f"a {answer.match} is a place in one image, and the row has {images}. Use another match.")
    return answer


def _text_of(message: Message) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(entry["text"] for entry in content if entry["type"] == "text")


def _kind_of(expected: str, asked: str) -> AnswerKind:
    if expected.strip(" .()") in match.listed_letters(asked):
        return "letter"
    spoken = match.words(expected)
    if spoken in (("yes",), ("no",)):
        return "yesno"
    if _WHOLE_NUMBER.fullmatch(expected.removesuffix(".")) or " ".join(spoken) in NUMBER_WORDS:
        return "number"
    return "text" if spoken else "exact"
