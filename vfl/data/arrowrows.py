"""Arrow record batches as rows of plain Python values; columns of JSON text become what the JSON says."""

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from vfl.data.rawrow import parse_json
from vfl.errors import InputError

BATCH = 16
"""Rows in memory at a time: they may hold images."""

Convert = Callable[[Any], Any]


def batch_rows(batch: pa.RecordBatch | pa.Table) -> Iterator[dict[str, Any] | InputError]:
    """The rows of a batch; an InputError stands for a row whose JSON column is not JSON."""
    converts = {field.name: convert for field in batch.schema if (convert := _convert(field.type))}
    for row in batch.to_pylist():
        try:
            for name, convert in converts.items():
                row[name] = convert(row[name])
        except InputError as error:
            yield InputError(f"column {name} is {error}")
        else:
            yield row


def _convert(kind: pa.DataType) -> Convert | None:
    """How values of a type become plain; None where they are already."""
    if isinstance(kind, pa.BaseExtensionType):
        return _json if kind.extension_name == "arrow.json" else _convert(kind.storage_type)
    if pa.types.is_struct(kind):
        inner = {field.name: convert for field in kind if (convert := _convert(field.type))}
        return (lambda value: _in_struct(value, inner)) if inner else None
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        item = _convert(kind.value_type)
        return (lambda value: value and [item(element) for element in value]) if item else None
    return None


def _json(value: str | None) -> Any:
    return None if value is None else parse_json(value.encode("utf-8", "surrogatepass"))


def _in_struct(value: dict[str, Any] | None, inner: dict[str, Convert]) -> dict[str, Any] | None:
    return value and {name: inner[name](element) if name in inner else element for name, element in value.items()}
