"""A probe pair: two images of equal size that differ in one thing, one question, and the answer on each.

On disk a suite is a folder with `probes.jsonl`, one pair a line, and image paths relative to that folder. `read_suite`
checks everything that can be checked without a model, so that a long run never ends on a bad line; every message names
the file and the line. For an audio language model the images are WAV files of equal length.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from vfl.errors import InputError
from vfl.io.atomic import replacing
from vfl.io.audio import is_sound, sound_size
from vfl.io.files import inside, open_image, open_rgb
from vfl.probes import match
from vfl.probes.match import Box, MatchKind

PROBES_FILE = "probes.jsonl"
Which = Literal["image", "source_image", "control_image"]
WHICH: tuple[Which, ...] = ("image", "source_image", "control_image")
LettersBy = Literal["logits", "text"]
Text = Annotated[str, Field(min_length=1)]


class Pair(BaseModel):
    """One line of probes.jsonl.

    `image` is the target: the image that is asked about. `source_image` lends its vision states to a swap.
    `control_image` has the same answer as `image` and other nuisance (place, colour, distractors): what a swap with it
    changes is disruption and not function. Boxes and points are pixels of the file. Pairs of one `group` show the same
    scene: intervals and tests take them as one sample.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: Text
    function: Text
    image: Text
    source_image: Text
    question: Text
    answer: Text
    source_answer: Text
    match: MatchKind
    control_image: Text | None = None
    boxes: dict[Which, list[Annotated[list[float], Field(min_length=4, max_length=4)]]] = Field(default_factory=dict)
    label: Text | None = None
    choices: list[Text] = Field(default_factory=list)
    group: Text | None = None

    _folder: Path = PrivateAttr(default=Path())
    _size: tuple[int, int] = PrivateAttr(default=(0, 0))
    _max_new_tokens: int | None = PrivateAttr(default=None)
    _letters_by: LettersBy = PrivateAttr(default="logits")

    @field_validator("function", "id")
    @classmethod
    def _plain(cls, name: str) -> str:
        if name != name.strip() or not name.isprintable():
            raise ValueError("expected printable text without spaces around it")
        return name

    @model_validator(mode="after")
    def _answers_differ(self) -> "Pair":
        for key, answer in (("answer", self.answer), ("source_answer", self.source_answer)):
            if match.read(self.match, answer) is None:
                raise ValueError(f'{key} {answer!r} cannot be read as match "{self.match}" ({_EXPECTED[self.match]})')
        if self.match != "point":  # points need the image's size
            self._check_difference()
        return self

    @property
    def folder(self) -> Path:
        """The suite's folder (resolved)."""
        return self._folder

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, the same for all images of the pair; (samples, rate) of sounds."""
        return self._size

    @property
    def max_new_tokens(self) -> int | None:
        """Most tokens of an answer, where a user limited them."""
        return self._max_new_tokens

    def limited(self, max_new_tokens: int | None) -> Self:
        """The pair with its answers limited to so many tokens; None leaves it as it is."""
        if max_new_tokens is None:
            return self
        pair = self.model_copy()
        pair._max_new_tokens = max_new_tokens
        return pair

    @property
    def letters(self) -> list[str]:
        """The letters that an answer chooses from, where it is one of them: `choices` that are all capital letters."""
        return list(self.choices) if self.match in ("letter", "text") and match.are_letters(self.choices) else []

    @property
    def by_logits(self) -> bool:
        """Whether a metric takes the letter whose first token is likeliest, instead of reading the generated answer."""
        return bool(self.letters) and self._letters_by == "logits"

    def lettered(self, letters_by: LettersBy) -> Self:
        """The pair with its letters chosen so."""
        pair = self.model_copy()
        pair._letters_by = letters_by
        return pair

    @property
    def images(self) -> list[Which]:
        """The images this pair has: image, source_image and, where there is one, control_image."""
        return [which for which in WHICH if getattr(self, which) is not None]

    def path(self, which: Which) -> Path:
        """The absolute path of one image; `which` as in `images`."""
        name = getattr(self, which)
        if name is None:
            raise InputError(f"pair {self.id!r} has no {which}")
        return self._folder / str(name)

    def open(self, which: Which) -> Image.Image:
        """One image as RGB; transparency shows white."""
        return open_rgb(self.path(which))

    def correct(self, answer: str, which: Which = "image") -> bool:
        """Whether a model's answer (boxes and points in pixels) on this image is right."""
        return self._same(answer, self.source_answer if which == "source_image" else self.answer, which)

    def changed(self, answer: str, baseline: str) -> bool:
        """Whether a swapped answer differs from the unswapped one; an unparsable answer has changed."""
        return not self._same(answer, baseline)

    def followed_source(self, answer: str, source_baseline: str) -> bool:
        """Whether a swapped answer is the source's unswapped answer."""
        return self._same(answer, source_baseline, "source_image")

    def _same(self, first: str, second: str, which: Which = "image") -> bool:
        boxes = self.boxes.get(which) or ([] if which == "source_image" else self.boxes.get("image", []))
        return match.same(
            "letter" if self.letters else self.match,
            first,
            second,
            candidates=self.choices or (() if self.match == "letter" else (self.answer, self.source_answer)),
            box=(boxes[0][0], boxes[0][1], boxes[0][2], boxes[0][3]) if boxes else None,
            image_size=self._size,
        )

    def _check_difference(self) -> None:
        if self._same(self.answer, self.source_answer):
            raise InputError(
                f"answer {self.answer!r} and source_answer {self.source_answer!r} are the same under match"
                f' "{self.match}": a swap between the two images could not show'
            )

    def line(self) -> str:
        """This pair as one line of JSON, without the keys that hold nothing."""
        data = self.model_dump(exclude_none=True)
        return json.dumps({key: value for key, value in data.items() if value not in ([], {})}, ensure_ascii=False)


_EXPECTED: dict[MatchKind, str] = {
    "text": "expected at least one letter or digit",
    "number": 'expected a number such as "3"',
    "yesno": 'expected "yes" or "no"',
    "box": 'expected "[x0, y0, x1, y1]" with x0 < x1 and y0 < y1',
    "point": 'expected "[x, y]"',
    "letter": 'expected a capital letter such as "B"',
}


@dataclass(frozen=True, kw_only=True)
class DrawnPair:
    """A pair whose images are still in memory; the fields are those of Pair. `make` gives the id."""

    function: str
    question: str
    answer: str
    source_answer: str
    match: MatchKind
    image: Image.Image
    source_image: Image.Image
    control_image: Image.Image | None = None
    boxes: dict[Which, list[Box]] = field(default_factory=dict)
    label: str | None = None
    choices: tuple[str, ...] = ()
    group: str | None = None
    id: str = ""


def read_suite(folder: str | Path) -> list[Pair]:
    """All pairs of a suite, checked: the keys, the answers, the paths, the images and their sizes.

    Raises:
        InputError: names the file and the line, what was found and what was expected.
    """
    pairs = []
    path = Path(folder) / PROBES_FILE
    for number, pair in read_lines(folder):
        if isinstance(pair, InputError):
            raise InputError(f"{path}, line {number}: {pair}") from pair
        pairs.append(pair)
    if not pairs:
        raise InputError(f"{path} holds no pairs; expected one JSON object a line")
    return pairs


def read_lines(folder: str | Path) -> Iterator[tuple[int, Pair | InputError]]:
    """Each line of a suite that is not empty: its number, and its pair or what is wrong with it.

    Raises:
        InputError: there is no suite, or it is no text.
    """
    root = Path(folder)
    path = root / PROBES_FILE
    if not path.is_file():
        raise InputError(
            f"{root} holds no {PROBES_FILE}; give the folder of a probe suite, or make one with"
            f" `vfl probes make {root}`"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}); write the file as UTF-8") from error
    lines: dict[str, int] = {}
    sizes: dict[Path, tuple[int, int]] = {}  # an image that several pairs share is decoded once
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            pair = _read_line(line, root.resolve(), sizes)
            if pair.id in lines:
                raise InputError(f"id {pair.id!r} already stands on line {lines[pair.id]}; ids must be unique")
        except InputError as error:
            yield number, error
            continue
        lines[pair.id] = number
        yield number, pair


def write_suite(folder: str | Path, drawn: Iterable[DrawnPair]) -> list[Pair]:
    """Write drawn pairs as a suite (PNG images under `images/`) and return them as `read_suite` would.

    An image that several pairs of a group share is written once. probes.jsonl is written last, so an interrupted run
    leaves no suite that looks complete.

    Raises:
        InputError: the folder holds a suite already, or an id cannot name a file.
    """
    root = Path(folder)
    path = root / PROBES_FILE
    if path.exists():
        raise InputError(f"{path} exists already; give another folder, or remove that suite first")
    (root / "images").mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    group, shared = None, dict[int, tuple[str, Image.Image]]()  # images are held, or their ids would be taken again
    for pair in drawn:
        if pair.group is None or pair.group != group:
            group = pair.group
            shared.clear()
        if not pair.id or not set(pair.id) <= _FILE_NAME or pair.id.startswith("."):
            raise InputError(f"id {pair.id!r} cannot name an image file; use letters, digits, '.', '-' and '_'")
        names: dict[Which, str] = {}
        for which, suffix in zip(WHICH, ("", ".source", ".control"), strict=True):
            image: Image.Image | None = getattr(pair, which)
            if image is None:
                continue
            if id(image) not in shared:
                shared[id(image)] = f"images/{pair.id}{suffix}.png", image
                image.save(root / shared[id(image)][0])
            names[which] = shared[id(image)][0]
        boxes = {which: [list(map(float, box)) for box in corners] for which, corners in pair.boxes.items()}
        texts = {key: getattr(pair, key) for key in ("id", "function", "question", "answer", "source_answer", "match")}
        rest = {"boxes": boxes, "label": pair.label, "choices": list(pair.choices), "group": pair.group}
        written = Pair.model_validate(texts | names | rest)
        lines.append(written.line() + "\n")
    with replacing(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    return read_suite(root)


def suite_sha256(folder: str | Path) -> str:
    """SHA-256 of a suite over its pairs and the bytes of their images; where the folder lies does not matter."""
    digest = hashlib.sha256()
    for pair in read_suite(folder):
        digest.update(hashlib.sha256(pair.line().encode()).digest())
        for which in pair.images:
            digest.update(hashlib.sha256(pair.path(which).read_bytes()).digest())
    return digest.hexdigest()


_FILE_NAME = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def _read_line(line: str, root: Path, sizes: dict[Path, tuple[int, int]]) -> Pair:
    try:
        pair = Pair.model_validate_json(line)
    except ValidationError as error:
        raise InputError("; ".join(_problem(dict(problem)) for problem in error.errors())) from error
    pair._folder = root
    size_of: dict[Which, tuple[int, int]] = {}
    for which in pair.images:
        path = inside(root, getattr(pair, which), which)
        if path not in sizes:
            sizes[path] = sound_size(path) if is_sound(path) else open_image(path).size
        size_of[which] = sizes[path]
    if len(set(size_of.values())) > 1:
        listed = ", ".join(f"{which} {width}x{height}" for which, (width, height) in size_of.items())
        raise InputError(f"the images of a pair must have equal pixel sizes, got {listed}; resize them alike")
    pair._size = size_of["image"]
    pair._check_difference()
    for which, boxes in pair.boxes.items():
        if any(not (0 <= x0 < x1 <= pair.size[0] and 0 <= y0 < y1 <= pair.size[1]) for x0, y0, x1, y1 in boxes):
            raise InputError(
                f"boxes.{which} {boxes} must be [x0, y0, x1, y1] with x0 < x1 and y0 < y1 inside the image of"
                f" {pair.size[0]}x{pair.size[1]} pixels"
            )
    return pair


def _problem(error: dict[str, object]) -> str:
    location, kind, message = error["loc"], error["type"], str(error["msg"])
    key = ".".join(map(str, location)) if isinstance(location, tuple) else ""
    if kind == "missing":
        return f"key {key!r} is missing"
    if kind == "extra_forbidden":
        return f"unknown key {key!r}; expected only {', '.join(Pair.model_fields)}"
    if kind == "json_invalid":
        return f"not a JSON object ({message})"
    message = message.removeprefix("Value error, ")
    return f"{key}: {message}, got {error['input']!r}" if key else message
