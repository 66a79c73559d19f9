"""Rows without an image that seem to have one: under another column's name, or as another tool marks it in a text.

Reading them as text would train or score without the image, and nobody would know.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from vfl.data.imagefolder import is_blank
from vfl.data.sample import Message
from vfl.errors import InputError

_NAMED = re.compile(
    r"(?:.*[_ ])?(?:image|img|picture|pic|photo)s?"
    r"(?:[_ ]?(?:path|file|filename|name|list|url|uri|link|bytes|base64|b64|data|\d+)s?)*|medias?|jpe?g|png|webp",
    re.IGNORECASE,
)
_FILE = re.compile(r"\S{1,1000}\.(?:jpe?g|png|webp|gif|bmp|tiff?|jp2|ppm)(?:\?\S*)?", re.IGNORECASE)
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
_MARKS = re.compile(
    r"<img>[^<>\s][^<>]*</img>"  # Qwen-VL
    r"|<\|?image[_ ]?\d+\|?>|<\|image\|>|<\|image_pad\|>|<\|vision_start\|>|<image_placeholder>|<ImageHere>|\[IMG\]"
    r"|<image ?/>|<start_of_image>|<image_soft_token>|<im(?:age)?_patch>"
    r"|\A\s*<image>|<image>\s*\Z",  # in other letters: <IMAGE>; inside a text that may be someone's program
    re.IGNORECASE,
)


def check_row(row: Mapping[str, Any], turns: Iterable[Message], others: Iterable[str]) -> None:
    """Raise InputError where a row that was read without an image has an image-like column or mark.

    Args:
        turns: as they were read.
        others: the columns to look at; those that were read are none of them.
    """
    for name in others:
        if looks_like_image(name, row[name]):
            raise InputError(
                f"the row has no image that is read, but its column {name} looks like one; say"
                f" image_column: {name}, or, if it is none, name the column that holds images (image_column: image)"
            )
    for number, turn in enumerate(turns, start=1):
        for part in turn["content"] if turn["role"] == "user" else ():
            mark = _MARKS.search(part.get("text", ""))
            if mark is not None:
                raise InputError(
                    f"turn {number} (user) holds {mark[0].strip()[:80]!r}, and the row has no image that is read; write"
                    " <image> in its place, and the image's name into a column `images` (or say with image_column:"
                    " which column holds it)"
                )


def looks_like_image(name: str, value: Any) -> bool:
    """Whether a column, or a turn's key, seems to hold images, by its name or by what it holds."""
    if is_blank(value) or isinstance(value, (bool, int, float)):
        return False
    return _NAMED.fullmatch(name) is not None or (name != "id" and _holds_image(value))


def _holds_image(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and _holds_image(value[0])
    if isinstance(value, dict):
        return any(map(_holds_image, value.values()))
    if isinstance(value, bytes):
        return value.startswith(_MAGIC)
    return isinstance(value, str) and (value.startswith("data:image/") or _FILE.fullmatch(value) is not None)
