"""Rows of a run's table, filtered by its columns: answers of a map's pairs, scores of a data set."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from vfl.errors import InputError
from vfl.io.did_you_mean import did_you_mean
from vfl.report.words import NONE
from vfl.serve.folder import file_in, file_of

SHOWN = 100
PAIRS = "pairs.parquet"
PARTS = "parts"
COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "≠": operator.ne,
    "≥": operator.ge,
    "≤": operator.le,
}
CONTAINS = "contains"
WAYS = (*COMPARED, CONTAINS)


@dataclass(frozen=True)
class Condition:
    """A column, how it is compared, and with what, as a person wrote them."""

    column: str
    way: str
    value: str


@dataclass(frozen=True)
class Samples:
    """The first rows that all conditions hold for.

    Attributes:
        columns: names of the columns that are shown; lists and bytes are not.
        rows: at most SHOWN of them, as text.
        found: how many rows there are for which they hold.
        of: how many there are.
    """

    columns: list[str]
    rows: list[list[str]]
    found: int
    of: int


def filter_samples(root: Path, run: str, conditions: Sequence[Condition]) -> Samples:
    """Read the rows of a run's table for which all conditions hold; a row without a value holds for none.

    Raises:
        InputError: for a run without a table, an unknown column, or a value that is not of the column's kind.
    """
    files = _files(root, run)
    try:
        table = ds.dataset([str(file) for file in files], format="parquet")
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"The table of {run} can't be read: {str(error).splitlines()[0]}") from None
    columns = [field.name for field in table.schema if not (pa.types.is_nested(field.type) or _is_bytes(field.type))]
    chosen = pc.scalar(True)
    for condition in conditions:
        chosen = chosen & _expression(table.schema, columns, condition)
    first = table.head(SHOWN, columns=columns, filter=chosen).to_pylist()
    rows = [[_text(row[name]) for name in columns] for row in first]
    return Samples(columns, rows, table.count_rows(filter=chosen), table.count_rows())


def _files(root: Path, run: str) -> list[Path]:
    if (pairs := file_of(root, run, PAIRS)) is not None:
        return [pairs]
    parts = file_of(root, run, PARTS)
    names = sorted(path.name for path in parts.glob("*.parquet")) if parts is not None and parts.is_dir() else []
    if not names:
        raise InputError(f"{run} has no table of samples: neither {PAIRS} nor {PARTS}/*.parquet.")
    return [file_in(root, f"{run}/{PARTS}/{name}") for name in names]  # each may be a link of its own


def _expression(schema: pa.Schema, columns: Sequence[str], condition: Condition) -> Any:
    name, way, value = condition.column, condition.way, condition.value
    if name not in columns:
        hint = did_you_mean(name, columns)
        raise InputError(f"There is no column {name!r} to filter by; {hint or 'it has ' + ', '.join(columns) + '.'}")
    if way not in WAYS:
        raise InputError(f"{way!r} is no way to compare; expected one of {', '.join(WAYS)}.")
    kind = schema.field(name).type
    if way == CONTAINS:
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise InputError(f"{name} holds no text ({kind}), so it can't contain {value!r}. Compare it with = or ≥.")
        return pc.match_substring(pc.field(name), value, ignore_case=True)
    try:
        return COMPARED[way](pc.field(name), pa.scalar(value).cast(kind))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise InputError(f"{name} is compared with a value of its kind, {kind}; got {value!r}.") from None


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _text(value: Any) -> str:
    if value is None:
        return NONE
    return f"{value:.4g}" if isinstance(value, float) else str(value)
