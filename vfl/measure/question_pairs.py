"""Pairs as they are measured: a data set's question on its one image, and answers that a judge decides on."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import PrivateAttr, ValidationError, model_validator

from vfl.data import Sample
from vfl.data.imageref import ImageRef
from vfl.errors import InputError
from vfl.evaluate.items import items_of_data
from vfl.io.atomic import replacing
from vfl.io.audio import SUFFIX, sound_size
from vfl.io.files import open_image
from vfl.measure.judge import Judge
from vfl.measure.row_boxes import box_of_answer, spoken
from vfl.measure.row_choices import choices_of, chosen_from
from vfl.measure.row_objects import NONE, USUAL, ObjectColumns, object_of
from vfl.models.boxes import pixel_text
from vfl.models.medium import Modality
from vfl.probes import match
from vfl.probes.pair import Pair, Which


class AskedPair(Pair):
    """A pair with what a suite does not hold.

    A question with one image (`single`) has no source: its `images` is ["image"], and its source fields repeat the
    target's. With a judge, free-form answers (match "text") are right when it says so.
    """

    _single: bool = PrivateAttr(default=False)
    _judge: Judge | None = PrivateAttr(default=None)
    _boxes_read_as: str | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _answers_differ(self) -> "AskedPair":
        """Answers were checked where they were read; a question alone has only one."""
        return self

    @property
    def single(self) -> bool:
        """Whether this is a question on one image."""
        return self._single

    @property
    def boxes_read_as(self) -> str | None:
        """Column and writing of a row's boxes, for a person; None where it has none."""
        return self._boxes_read_as

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
    if isinstance(pair, AskedPair):
        asked._single, asked._boxes_read_as = pair.single, pair.boxes_read_as
    return asked


def question(
    sample: Sample, folder: Path, *, columns: ObjectColumns = USUAL, medium: Modality = "image", **how: Any
) -> AskedPair:
    """A row as a question on its image, or on its sound.

    Args:
        sample: one user turn with one image, and the right answer; with its stored row, whose columns may say where the
            object is, what it is called, and what the answer chooses from.
        folder: where an image goes that the row holds itself, named by its content: rows that hold the same one share
            it, and what another run left there is never taken for this row's.
        columns: which of the row's columns hold its object.
        medium: "audio" where the row holds a sound, which has no places: no box is read.
        how: `name`, `column` and `match` of `items_of_data`, and `choices`, which go before the row's own.

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
    if medium == "audio":
        columns = replace(columns, box=NONE)
    try:
        path, size = _file_of(sample.images[0], folder, medium)  # opened now, and not in the middle of a metric
        shown = object_of(sample.row or {}, size, columns)
        own = None if choices else choices_of(sample.row or {})
        guessed = how.get("match", "auto") == "auto" and item.match == "text"
        place = box_of_answer(item.expected, columns.format, size) if guessed and medium == "image" else None
    except InputError as error:
        raise InputError(f"{sample.where}: {error}") from error
    content = item.messages[0]["content"]
    texts = [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]
    asked_for = "".join(texts).strip()
    expected, kind, boxes, read_as = item.expected, item.match, shown.boxes, shown.read_as
    if place is not None:
        answer, written = place
        expected, kind = pixel_text(answer), "box"
        boxes, read_as = boxes or [answer], read_as or f"the answers as {spoken(written)}"
    elif own is not None and own.texts:
        try:
            choices, expected = chosen_from(own, asked_for, expected)
        except InputError as error:
            raise InputError(f"{sample.where}: {error}") from error
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
            answer=expected,
            source_answer=expected,
            match=kind,
            choices=choices,
            boxes={"image": boxes} if boxes else {},
            label=shown.label,
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(f"{sample.where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    asked._folder, asked._size, asked._single = path.parent.resolve(), size, True
    asked._boxes_read_as = read_as
    if choices and not any(asked.correct(choice) for choice in choices):
        raise InputError(f"{sample.where}: the answer {expected!r} is none of the choices {', '.join(choices)}.")
    return asked


def _file_of(image: ImageRef, folder: Path, medium: Modality) -> tuple[Path, tuple[int, int]]:
    """A file with the row's image or sound, and its size; one that the row holds itself goes into the folder."""
    if medium == "audio":
        path = _sound_file(image.content(), folder) if image.path is None else image.path
        return path, sound_size(path)
    if image.path is None:
        path = _written(image.open(), folder)
    else:
        path = image.path
        image.check()
    return path, open_image(path).size


def _sound_file(content: bytes, folder: Path) -> Path:
    path = folder / f"{sha256(content).hexdigest()[:24]}{SUFFIX}"
    if not path.exists():
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    return path


def _written(picture: Image.Image, folder: Path) -> Path:
    """The file of a picture in a folder; written whole, since its name is believed."""
    path = folder / f"{sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest()[:24]}.png"
    if not path.exists():
        with replacing(path) as temporary:
            picture.save(temporary, format="PNG")
    return path
