"""A JSON array of rows, read element by element: the file is never in memory as a whole.

Rows are copied into subsets as they stand in the file, to the byte. That is why this is no ijson, which gives values
and events without their text or places.
"""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from vfl.data.hashing import Hashes
from vfl.data.packed import packing, unpacked
from vfl.data.rawrow import RawRow, Start, raw_row
from vfl.errors import InputError

CHUNK = 2**18
"""Bytes read at a time."""
TAIL = 12
"""Characters that may be needed to see what the last sign is; -Infinity has 9, an escaped letter beyond 16 bits 12."""
MAX_ROW = 2**27
"""Characters after which a row without an end is taken for a broken file."""

HEAD = 200
"""Characters among which an object that wraps the rows must come to them."""
WRAPPERS = ("data", "rows", "samples", "examples", "train")

WRAPPED = re.compile(r'\{\s*"(?:' + "|".join(WRAPPERS) + r')"\s*:\s*\[')
Element = tuple[Any, str, int]
_SPACE = " \t\r\n"
_decode = json.JSONDecoder().raw_decode


def rows(path: Path, start: Start | None = None, hashes: Hashes | None = None) -> Iterator[RawRow]:
    """The rows of a .json file: one array, an object whose `data` (or another of WRAPPERS) is one, or objects in a row.

    Args:
        start: where a row begins, to begin with it. Then what follows the rows is not looked at.

    Raises:
        InputError: where the file stops being JSON: nothing after that place can be trusted, so this is no bad row.
    """
    seekable = not packing(path)
    with unpacked(path, hashes) as handle:
        found = _elements(_Text(handle, path)) if start is None else _later_elements(_Text(handle, path, start.at))
        for number, (value, _, at) in enumerate(found, start=start.number if start else 1):
            begin = Start(at, number) if seekable else None
            yield raw_row(f"{path.name} row {number}", value, start=begin)


def entries(path: Path) -> Iterator[tuple[Any, str]]:
    """Each row and its own text in the file."""
    with unpacked(path) as handle:
        for value, told, _ in _elements(_Text(handle, path)):
            yield value, told


def _later_elements(text: "_Text") -> Iterator[Element]:
    """The rows from the one on at which the text begins."""
    while text.next_sign() not in ("", "]", "}"):
        yield text.element()
        if text.next_sign() == ",":
            text.pos += 1


def _elements(text: "_Text") -> Iterator[Element]:
    sign = text.next_sign()
    if sign == "{":
        wrapped = text.wrapper()
        if not wrapped:
            while text.next_sign():
                yield text.element()
                text.rows += 1
            return
    elif sign != "[":
        raise text.broken("the file does not begin with [")
    else:
        wrapped = False
    text.pos += 1
    if text.next_sign() == "]":
        text.pos += 1
    else:
        while True:
            yield text.element()
            sign = text.next_sign()
            text.pos += 1
            if sign == "]":
                break
            if sign != ",":
                raise text.broken("expected , or ] after a row" if sign else "the file ends inside the array")
            text.rows += 1
            if text.next_sign() == "]":
                raise text.broken("a comma after the last row")
    if wrapped:
        if text.next_sign() != "}":
            raise text.broken("expected } after the rows, and no other keys behind them")
        text.pos += 1
    if text.next_sign():
        raise text.broken("something follows the array")


class _Text:
    """A window of the file's text: `buffer[pos:]` is not read yet."""

    def __init__(self, handle: BinaryIO, path: Path, at: int = 0) -> None:
        self.handle, self.path = handle, path
        self.byte, self.counted = at, 0  # of the file, at buffer[counted]
        if at:
            handle.seek(at)
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.buffer, self.pos, self.rows, self.ended = "", 0, 1, False

    def grow(self) -> None:
        """Read on, and at least as much again as is waiting, so that a long row is parsed few times."""
        data = self.handle.read(max(CHUNK, len(self.buffer) - self.pos))
        self.here()
        if not self.byte and data.startswith(codecs.BOM_UTF8):
            self.byte = len(codecs.BOM_UTF8)
        self.ended = not data
        try:
            self.buffer = self.buffer[self.pos :] + self.decoder.decode(data, self.ended)
        except UnicodeDecodeError as error:
            raise self.broken(f"not UTF-8 text ({error.reason})") from error
        self.pos = self.counted = 0

    def here(self) -> int:
        """The byte of the file at which what is not read yet begins."""
        self.byte += len(self.buffer[self.counted : self.pos].encode())
        self.counted = self.pos
        return self.byte

    def next_sign(self) -> str:
        """The next character that is no space, without reading over it; "" at the end of the file."""
        while True:
            while self.pos < len(self.buffer):
                if self.buffer[self.pos] not in _SPACE:
                    return self.buffer[self.pos]
                self.pos += 1
            if self.ended:
                return ""
            self.grow()

    def wrapper(self) -> bool:
        """Whether the object here begins with an array of rows under one of WRAPPERS; then goes to its [."""
        while len(self.buffer) - self.pos < HEAD and not self.ended:
            self.grow()
        match = WRAPPED.match(self.buffer, self.pos)
        if match is not None:
            self.pos = match.end() - 1
        return match is not None

    def element(self) -> Element:
        """The value that begins at the next sign, its text, and the byte where it begins."""
        self.next_sign()
        at = self.here()
        while True:
            try:
                value, end = _decode(self.buffer, self.pos)
            except json.JSONDecodeError as error:
                # cut off by the window's end: inside a string, or within a few characters of the end
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self.buffer) - TAIL
                if self.ended or not cut:
                    raise self.broken(error.msg) from error
                if len(self.buffer) - self.pos > MAX_ROW:
                    raise self.broken(f"a row of more than {MAX_ROW} characters") from error
            except (RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
                raise self.broken(f"not usable JSON ({error})") from error
            else:
                if end < len(self.buffer) - TAIL or self.ended:  # else a number may go on: 1 is read of "1." or "1e+"
                    text, self.pos = self.buffer[self.pos : end], end
                    return value, text, at
            self.grow()

    def broken(self, why: str) -> InputError:
        return InputError(
            f"{self.path} is no intact JSON array of rows: at row {self.rows}: {why}; mend the file there or write it"
            " anew"
        )
