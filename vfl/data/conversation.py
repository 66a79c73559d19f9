"""A row to a sample's messages and images: the turns are in order, and each image has its place."""

from collections.abc import Mapping, Sequence
from typing import Any

from vfl.data.imagefolder import ImageFolder, is_blank
from vfl.data.imageref import ImageRef
from vfl.data.kinds import KINDS, Conversation, Kind
from vfl.data.lost_images import check_row
from vfl.data.sample import Message
from vfl.data.turns import MARK
from vfl.errors import InputError

IMAGE_COLUMNS = ("images", "image")
OTHER_MEDIA = ("video", "videos", "audio", "audios")
PLACE = {"type": "image"}


def converse(
    row: Mapping[str, Any],
    kind: Kind,
    folder: ImageFolder,
    members: Mapping[str, bytes],
    image_columns: Sequence[str] | None = None,
) -> tuple[Conversation, tuple[ImageRef, ...]]:
    """The row's conversation with bare image places, and the images of these places in reading order.

    Args:
        members: images that came with the row by name; if the row names no image, they are its images.
        image_columns: those that hold the images, in this order; None for one of IMAGE_COLUMNS, and then a row without
            images must not have a column that looks like one.

    Raises:
        InputError: for a row that cannot be used, with the reason.
    """
    for name in OTHER_MEDIA:
        if row.get(name) and name not in (image_columns or ()):
            raise InputError(f"the row has {name}; only images are read")
    spoken = KINDS[kind][1](row)
    _check_order(spoken.turns)
    places = _places(spoken.turns)
    open_places = sum("image" not in place for place in places)
    shown = _column_images(row) if image_columns is None else _named_images(row, image_columns)
    if not shown and (open_places or not places):
        shown = list(members)
    lead = len(shown) if not places else 0  # no mark anywhere: the images go before the first question
    if not lead and open_places != len(shown):
        raise InputError(
            f"the row has {len(shown)} images in its columns and {open_places} places for them in its text"
            f' ({MARK} or an entry {{"type": "image"}})'
        )
    if not shown and not places:
        read_already = (*KINDS[kind][0], *IMAGE_COLUMNS)
        check_row(row, spoken.turns, [] if image_columns else [name for name in row if name not in read_already])
    names = iter(shown)
    wanted = [place["image"] if "image" in place else next(names) for place in places] or shown
    images = tuple(folder.ref(value, members) for value in wanted)
    turns = _bare(spoken.turns, lead)
    _check_content(turns, spoken.turns)
    rejected = None
    if spoken.rejected is not None:
        _check_order(spoken.rejected)
        rejected = _bare(spoken.rejected, lead)
        _check_content(rejected, spoken.rejected)
        if _places([*turns[spoken.prompt :], *rejected[spoken.prompt :]]):
            raise InputError("an image stands after the prompt; expected the images of a preference row in its prompt")
    return Conversation(turns, spoken.prompt, rejected), images


def _column_images(row: Mapping[str, Any]) -> list[Any]:
    filled = [name for name in IMAGE_COLUMNS if not is_blank(row.get(name))]
    if len(filled) > 1:
        raise InputError(f"the row has both {' and '.join(filled)}; expected one of them")
    if not filled:
        return []
    return _named_images(row, filled)


def _named_images(row: Mapping[str, Any], columns: Sequence[str]) -> list[Any]:
    values = [row[name] for name in columns if not is_blank(row.get(name))]
    return [image for value in values for image in (value if isinstance(value, list) else [value])]


def _places(turns: Sequence[Message]) -> list[dict[str, Any]]:
    return [part for turn in turns for part in turn["content"] if part["type"] == "image"]


def _bare(turns: Sequence[Message], lead: int) -> list[Message]:
    """The turns without what they say of their images, and with `lead` places before the first user turn's text."""
    first_user = next(i for i, turn in enumerate(turns) if turn["role"] == "user")
    return [
        {
            "role": turn["role"],
            "content": [dict(PLACE) for _ in range(lead if i == first_user else 0)]
            + [dict(PLACE) if part["type"] == "image" else part for part in turn["content"]],
        }
        for i, turn in enumerate(turns)
    ]


def _check_order(turns: Sequence[Message]) -> None:
    expected = "user"
    for number, turn in enumerate(turns, start=1):
        role = turn["role"]
        if role == "system" and number == 1:
            continue
        if role != expected:
            raise InputError(
                f"turn {number} is the {role}'s, expected the {expected}'s: user and assistant take turns, after at"
                " most one system turn"
            )
        expected = "assistant" if role == "user" else "user"
    if turns[-1]["role"] != "assistant":
        raise InputError(f"the last turn is the {turns[-1]['role']}'s; expected an answer of the assistant")


def _check_content(turns: Sequence[Message], written: Sequence[Message]) -> None:
    for number, (turn, original) in enumerate(zip(turns, written, strict=True), start=1):
        role = turn["role"]
        texts = [part["text"] for part in turn["content"] if part["type"] == "text"]
        if role != "user" and _places([original]):
            raise InputError(f"turn {number} ({role}) holds an image ({MARK}); expected images in user turns only")
        if not any(text.strip() for text in texts) and (role != "user" or len(texts) == len(turn["content"])):
            raise InputError(f"turn {number} ({role}) is empty")
        for text in texts:
            if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise InputError(f"turn {number} ({role}) is not Unicode text (half of a surrogate pair)")
