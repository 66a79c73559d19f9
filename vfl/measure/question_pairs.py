"""Pairs as they are measured: a data set's question on its one image, and answers that a judge decides on."""

from pathlib import Path
from typing import Any

from pydantic import PrivateAttr, ValidationError, model_validator

from vfl.data import Sample
from vfl.errors import InputError
from vfl.evaluate.items import items_of_data
from vfl.io.files import open_image
from vfl.measure.judge import Judge
from vfl.probes import match
from vfl.probes.pair import Pair, Which


class AskedPair(Pair):
    """A pair with what a suite does not hold.

    A question with one image (`single`) has no source: its `images` is ["image"], and its source fields repeat the
    target's. With a judge, free-form answers (match "text") are right when it says so.
    """

    _single: bool = PrivateAttr(default=False)
    _judge: Judge | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _answers_differ(self) -> "AskedPair":
        """Answers were checked where they were read; a question alone has only one."""
        return self

    @property
    def single(self) -> bool:
        """Whether this is a question on one image."""
        return self._single

    @property
    def images(self) -> list[Which]:
        return ["image"] if self._single else super().images

    def correct(self, answer: str, which: Which = "image") -> bool:
        if self._judge is None or self.match != "text" or self.letters:
            return super().correct(answer, which)
        expected = self.source_answer if which == "source_image" else self.answer
        return self._judge.right(self.question, expected, answer)


def judged(pair: Pair, judge: Judge) -> AskedPair:
    """The pair, with its free-form answers left to a judge."""
    asked = AskedPair.model_validate(pair.model_dump())
    asked._folder, asked._size, asked._judge = pair.folder, pair.size, judge
    asked._single = isinstance(pair, AskedPair) and pair.single
    return asked


def question(sample: Sample, folder: Path, number: int, **how: Any) -> AskedPair:
    """A row as a question on its image.

    Args:
        sample: one user turn with one image, and the right answer.
        folder: where an image goes that the row holds itself.
        number: of the row, for that image's name.
        how: `name`, `column` and `match` of `items_of_data`, and `choices`.

    Raises:
        InputError: says why the row can't be asked.
    """
    choices = list(how.pop("choices"))
    (item,) = items_of_data([sample], **how)
    if [turn["role"] for turn in item.messages] != ["user"] or len(sample.images) != 1:
        roles = ", ".join(turn["role"] for turn in item.messages)
        raise InputError(
            f"{sample.where}: {len(sample.images)} images and the turns {roles} before the answer; a question here is "
            "one user turn with one image."
        )
    if item.match == "exact":
        raise InputError(
            f"{sample.where}: the answer {item.expected!r} has no words, or match: exact was given; metrics compare "
            "text, number or yesno."
        )
    (image,) = sample.images
    try:
        path = image.path
        if path is None:
            path = folder / f"{number:06d}.png"
            if not path.exists():
                folder.mkdir(parents=True, exist_ok=True)
                image.open().save(path)
        else:
            image.check()  # now, and not in the middle of a metric
        size = open_image(path).size
    except InputError as error:
        raise InputError(f"{sample.where}: {error}") from error
    content = item.messages[0]["content"]
    texts = [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]
    asked_for = "".join(texts).strip()
    if item.match == "letter" or match.are_letters(choices):
        # a question of two choices is not one of four: chance, and the letters that are compared, are its own
        listed = match.listed_letters(asked_for)
        choices = [letter for letter in listed if not choices or letter in choices] or choices
    try:
        asked = AskedPair(
            id=item.id,
            function=item.group,
            image=path.name,
            source_image=path.name,
            question=asked_for,
            answer=item.expected,
            source_answer=item.expected,
            match=item.match,
            choices=choices,
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(f"{sample.where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    asked._folder, asked._size, asked._single = path.parent.resolve(), size, True
    if choices and not any(asked.correct(choice) for choice in choices):
        raise InputError(f"{sample.where}: the answer {item.expected!r} is none of the choices {', '.join(choices)}.")
    return asked
