"""What reading gives: a sample in one form whatever the format it came from, or the reason why a row is none."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vfl.data.imageref import ImageRef
from vfl.data.rawrow import Start

Message = dict[str, Any]
"""`{"role": "system"|"user"|"assistant", "content": [{"type": "text", "text": str} | {"type": "image"}, ...]}`"""


@dataclass(frozen=True)
class Place:
    """Where reading has to begin to come to a row: which of the sources' files, and where in it."""

    part: int
    start: Start | None
    """None: at the file's beginning, since nobody can begin elsewhere in it (archives that are packed)."""
    skip: int = 0
    """How many rows are read before it comes."""


@dataclass(frozen=True)
class Sample:
    """One conversation with its images.

    `uid` is the row's id where that is unique in what is read, else a hash of the text and the images with "#" and the
    number of the occurrence. The image places of `messages`, in reading order, belong to `images`, as many of each. In
    a preference row `messages` is the prompt with the chosen answer and `rejected` the prompt with the other.
    """

    uid: str
    where: str
    """For a person: "data.json row 17"; rows and lines count from 1."""
    messages: tuple[Message, ...]
    images: tuple[ImageRef, ...] = ()
    rejected: tuple[Message, ...] | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    """Every other column that holds a text, a number, a truth value or nothing."""
    row: dict[str, Any] | None = None
    """The row as it was stored, for writing it back; None unless it was asked for."""
    prompt: int = 0
    """How many of the first messages are a row's own `prompt`: never an answer to learn, not even their answers."""
    place: Place | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used, and why, in words for a person."""

    where: str
    uid: str
    reason: str
    place: Place | None = field(default=None, compare=False, repr=False)
    missing: Path | None = field(default=None, compare=False, repr=False)
    """The image file that is not there, where this is the reason."""
