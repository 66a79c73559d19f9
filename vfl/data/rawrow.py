"""A row as a container holds it, before anybody asks what it means."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vfl.data.cell import StoredRow
from vfl.data.imageref import Span
from vfl.errors import InputError


@dataclass(frozen=True)
class Start:
    """A row's place in a source: the byte at which it begins, or how many rows are before it; its number to show."""

    at: int
    number: int


@dataclass(frozen=True)
class RawRow:
    where: str
    row: dict[str, Any] | None
    """None where the container's entry is no row; `problem` says why and `stored` is what was there."""
    key: str | None = None
    """The container's own name for the row (of a tar archive), used as its id if the row has none."""
    members: Mapping[str, bytes] = field(default_factory=dict)
    spans: Mapping[str, Span] = field(default_factory=dict)
    """Where the members lie, if they lie in a file as they are."""
    problem: str = ""
    stored: Any = None
    stored_row: StoredRow | None = None
    """Where the row lies in a parquet file, if it does."""
    start: Start | None = None
    """Where reading can begin with this row, if it can."""

    @property
    def given_id(self) -> str | None:
        """The id that the row came with, as text; None where it has none, or one that does not fit on a line."""
        value = None if self.row is None else self.row.get("id")
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            value = self.key
        return str(value) if value not in (None, "") and str(value).isprintable() else None


def raw_row(where: str, value: Any, **more: Any) -> RawRow:
    """A container's entry: a row if it is an object."""
    if isinstance(value, dict):
        return RawRow(where, value, **more)
    return RawRow(where, None, problem=f"the row is no object but {_brief(value)}", stored=value, **more)


def parse_row(where: str, text: bytes, **more: Any) -> RawRow:
    """One JSON text as a row; if it is not JSON the row says so."""
    try:
        return raw_row(where, parse_json(text), **more)
    except InputError as error:
        return RawRow(where, None, problem=str(error), stored=text, **more)


def parse_json(text: bytes) -> Any:
    """The value of one JSON text in UTF-8.

    Raises:
        InputError: it is not UTF-8, not JSON, or nested too deeply.
    """
    try:
        return json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text ({error.reason} at byte {error.start})") from error
    except RecursionError as error:
        raise InputError("not usable JSON (nested too deeply)") from error
    except ValueError as error:  # also for a number of thousands of digits
        raise InputError(f"not JSON ({error})") from error


def _brief(value: Any) -> str:
    return "a list" if isinstance(value, list) else repr(value)[:80]
