"""Rows of an audio language model: their sounds take the places that images have, so that one reader serves both."""

from collections.abc import Mapping, Sequence
from typing import Any

from vfl.data.imagefolder import is_blank
from vfl.data.turns import MARK
from vfl.errors import InputError

COLUMNS = {"audio": "image", "audios": "images"}
SOUND = "<audio>"
_KEYS = {"audio": "image", "audio_url": "image_url"}  # of an entry of a turn


def as_images(row: Mapping[str, Any], columns: Sequence[str] | None = None) -> dict[str, Any]:
    """The row with images in place of sounds: the columns `audio` and `audios`, marks in texts, entries of turns.

    Args:
        row: as it is stored.
        columns: those that hold the sounds, which keep their names; None for `audio` or `audios`.

    Raises:
        InputError: for a row with images, which a model that hears sounds can't be shown.
    """
    shown = [name for name in COLUMNS.values() if name not in (columns or ()) and not is_blank(row.get(name))]
    if shown:
        raise InputError(f"the row has {shown[0]}; of a model that hears sounds only audio or audios are read")
    names = COLUMNS if columns is None else {}
    return {names.get(name, name): _as_image(value) for name, value in row.items()}


def _as_image(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(SOUND, MARK)
    if isinstance(value, list):
        return [_as_image(inner) for inner in value]
    if not isinstance(value, Mapping):
        return value
    if value.get("type") == "audio":
        return {_KEYS.get(key, key): inner for key, inner in value.items()} | {"type": "image"}
    return {key: _as_image(inner) for key, inner in value.items()}
