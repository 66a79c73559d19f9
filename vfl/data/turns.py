"""Turns as formats write them, in the one form of a message: a known role and a list of text and image parts.

Here an image part may still carry what the row says of its image, under "image"; `conversation` takes it out.
"""

import re
from typing import Any, Literal

from vfl.data.imagefolder import KEYS, is_blank
from vfl.data.lost_images import looks_like_image
from vfl.data.rawrow import parse_json
from vfl.data.sample import Message
from vfl.errors import InputError

MARK = "<image>"
TURN_KEYS = ("role", "content", "from", "value")
Role = Literal["system", "user", "assistant"]

ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "developer": "system",
    "tool": "user",
    "observation": "user",
    "function_call": "assistant",
}
"""In small letters. What a tool gave stands where a question does, and a call where an answer does."""
_MARKS = re.compile(re.escape(MARK))


def read_turns(value: Any, name: str) -> list[Message]:
    """The turns in a row's column `name`: objects with `role` and `content`, or with `from` and `value`.

    Raises:
        InputError: names the column, the turn (from 1) and what was expected.
    """
    value = rows_of_columns(value, name)
    if not isinstance(value, list):
        raise InputError(f"{name} is {_kind(value)}; expected a list of turns")
    if not value:
        raise InputError(f"{name} is empty; expected at least one turn")
    turns = [_read_turn(turn, f"{name}, turn {number}") for number, turn in enumerate(value, start=1)]
    blank_system = turns[0]["role"] == "system" and not any(
        part["type"] != "text" or part["text"].strip() for part in turns[0]["content"]
    )
    return turns[1:] if blank_system and len(turns) > 1 else turns


def rows_of_columns(value: Any, name: str) -> Any:
    """A list of objects as it was meant, from JSON text or from columns (as `datasets` before 4.0 stored it)."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return parse_json(value.encode("utf-8", "surrogatepass"))
        except InputError as error:
            raise InputError(f"{name} is text that begins with [ and is {error}") from error
    if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
        return _transposed(value)
    return value


def text_turn(role: Role, text: Any, name: str) -> Message:
    """A turn whose whole content is the column `name`."""
    return {"role": role, "content": _parts(text, name)}


def _read_turn(turn: Any, where: str) -> Message:
    if not isinstance(turn, dict):
        raise InputError(f"{where} is {_kind(turn)}; expected an object with role and content, or from and value")
    role, content = turn.get("role"), turn.get("content")
    if role is None:
        role, content = turn.get("from"), turn.get("value")
    if role is None:
        raise InputError(f"{where} has no role (nor from); its keys: {', '.join(map(str, turn)) or 'none'}")
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise InputError(f"{where} has the unknown role {role!r}; expected one of {', '.join(ROLES)}")
    known = ROLES[role.lower()]
    if known == "system" and content in (None, "", []):
        return {"role": known, "content": []}  # as templates leave it
    for key, value in turn.items():
        if key not in TURN_KEYS and looks_like_image(key, value):
            raise InputError(
                f"{where} has an image under {key}, where none is read; put it into the row's column `images`, with"
                f" {MARK} in the text where it is shown"
            )
    return {"role": known, "content": _parts(content, f"{where} ({role})")}


def _parts(content: Any, where: str) -> list[dict[str, Any]]:
    if content is None or content == "" or content == []:
        raise InputError(f"{where} is empty")
    if isinstance(content, str):
        return _split(content)
    if not isinstance(content, list):
        raise InputError(f"{where} holds {_kind(content)}; expected text or a list of typed entries")
    if len(content) > 1 and all(isinstance(entry, str) for entry in content):
        raise InputError(
            f"{where} is a list of {len(content)} texts; expected one text: of several right answers write one, of a"
            " better and a worse one write chosen and rejected"
        )
    return [part for entry in content for part in _entry(entry, where)]


def _entry(entry: Any, where: str) -> list[dict[str, Any]]:
    if isinstance(entry, str):
        return _split(entry)
    if not isinstance(entry, dict):
        raise InputError(f"{where} holds an entry that is {_kind(entry)}; expected an object with a type")
    kind = entry.get("type")
    if kind in ("text", "input_text", "output_text"):
        if not isinstance(entry.get("text"), str):
            raise InputError(f"{where} holds a text entry whose text is {_kind(entry.get('text'))}")
        return _split(entry["text"])
    if kind in ("image", "image_url", "input_image"):
        image = {key: entry[key] for key in ("bytes", "base64", *KEYS) if not is_blank(entry.get(key))}
        return [{"type": "image", "image": image} if image else {"type": "image"}]
    raise InputError(f"{where} holds an entry of type {kind!r}; expected text or image")


def _split(text: str) -> list[dict[str, Any]]:
    """Text and places at its image marks.

    LLaVA's data writes a mark on a line of its own before or after the text; that line's end belongs to the mark, since
    chat templates put in what their model expects there. Line ends inside the text stay.
    """
    pieces = _MARKS.split(text)
    lead = next((i for i, piece in enumerate(pieces) if piece not in ("", "\n")), len(pieces))
    trail = next((i for i, piece in enumerate(reversed(pieces)) if piece not in ("", "\n")), len(pieces))
    last = len(pieces) - 1
    parts: list[dict[str, Any]] = []
    for i, piece in enumerate(pieces):
        if 0 < i <= lead:
            piece = piece.removeprefix("\n")
        if i < last and last - i <= trail:
            piece = piece.removesuffix("\n")
        if piece:
            parts.append({"type": "text", "text": piece})
        if i < last:
            parts.append({"type": "image"})
    return parts


def _transposed(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    if len({len(column) for column in columns.values()}) != 1:
        raise InputError(f"turns are columns of unequal length ({', '.join(columns)})")
    return [dict(zip(columns, turn, strict=True)) for turn in zip(*columns.values(), strict=True)]


def _kind(value: Any) -> str:
    if value is None:
        return "missing"
    names: dict[type, str] = {str: "text", list: "a list", dict: "an object", bytes: "bytes"}
    return names[type(value)] if type(value) in names else repr(value)
