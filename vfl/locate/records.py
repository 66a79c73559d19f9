"""The sweep's records, one row per function x pair x swap x block of layers, as pairs.parquet.

A part is one finished chunk of pairs. An interrupted run keeps its parts, and a resumed one asks `pending` which pairs
still lack rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vfl.errors import InputError
from vfl.io.atomic import replacing

# `first`..`last` is the inclusive block of swapped layers: first == last for a single layer, -1/-1 for swap "none".
SCHEMA = pa.schema(
    [
        ("function", pa.string()),
        ("pair_id", pa.string()),
        ("group", pa.string()),  # pairs of one scene; empty for pairs of their own
        ("kept", pa.bool_()),  # unswapped target and source both answered correctly
        ("target_correct", pa.bool_()),
        ("source_correct", pa.bool_()),
        ("swap", pa.string()),  # none | source | control
        ("first", pa.int16()),
        ("last", pa.int16()),
        ("answer", pa.string()),
        ("changed", pa.bool_()),  # against the unswapped answer
        ("followed_source", pa.bool_()),
        ("logprob_answer", pa.float32()),  # mean log-probability per token of the pair's answer
        ("logprob_source_answer", pa.float32()),
        ("baseline_answer", pa.string()),  # the unswapped target's text
        ("source_baseline", pa.string()),  # the unswapped source's text
    ]
)
KEY = ["function", "pair_id", "swap", "first", "last"]
SWAPS = ("none", "source", "control")


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of SCHEMA; a missing or unknown column is our own mistake, hence an assertion."""
    for row in rows:
        assert row.keys() == set(SCHEMA.names), f"columns differ from the schema: {row.keys() ^ set(SCHEMA.names)}"
    return pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA)


def write_part(folder: Path, rows: Sequence[Mapping[str, Any]] | pa.Table, *, rank: int = 0, ranks: int = 1) -> Path:
    """Write the rows of one finished chunk of pairs as the next part; it appears whole or not at all.

    Args:
        folder: of the parts.
        rows: of the chunk.
        rank: of the process that writes; numbers of its parts have this remainder, so that no two take the same.
        ranks: how many processes write.
    """
    table = rows if isinstance(rows, pa.Table) else table_of(rows)
    number = max((int(path.stem) for path in _parts(folder)), default=-1) + 1
    number += (rank - number) % ranks
    path = folder / f"{number:06d}.parquet"
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return path


def read_parts(folder: Path) -> pa.Table:
    """All rows of the finished parts (none: an empty table), each key once."""
    return joined([read_records(path) for path in _parts(folder)])


def read_saved(parts: Path, united: Path | None = None) -> pa.Table:
    """All rows that an interrupted run saved: those of its parts, and of the file into which it had united them."""
    there = [] if united is None or not united.exists() else [read_records(united)]
    return joined([*there, read_parts(parts)])


def joined(tables: Iterable[pa.Table]) -> pa.Table:
    """Records in one table, each key once and sorted by key, so that how they were cut into parts does not show."""
    table = pa.concat_tables([SCHEMA.empty_table(), *tables])
    numbered = table.append_column("row", pa.array(range(table.num_rows), pa.int64()))
    first_rows = numbered.group_by(KEY).aggregate([("row", "min")])["row_min"]
    # a chunk that was swept twice gave the same rows twice
    return table.take(first_rows).sort_by([(name, "ascending") for name in KEY]).combine_chunks()


def unite(records: pa.Table, folder: Path, out: Path) -> None:
    """Write the records of all parts as one file, then remove the parts."""
    with replacing(out) as temporary:
        pq.write_table(records, temporary, compression="zstd")
    for path in _parts(folder):
        path.unlink()
    # Only our own parts go; a folder that holds anything else stays.
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def read_records(path: Path) -> pa.Table:
    """Read pairs.parquet or one part; InputError for a file that is none."""
    try:
        table = pq.ParquetFile(path).read()
    except FileNotFoundError:
        raise InputError(f"No sweep records at {path}.") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is not readable parquet ({error}). Remove it and sweep those pairs again.") from None
    return checked(table, str(path))


def checked(table: pa.Table, name: str = "the records") -> pa.Table:
    """The table in SCHEMA's column order and types, or InputError; records of older versions know no groups."""
    if "group" not in table.column_names:
        table = table.append_column("group", pa.nulls(table.num_rows, pa.string()))
    if missing := [column for column in SCHEMA.names if column not in table.column_names]:
        raise InputError(f"{name}: columns {', '.join(missing)} are missing; expected `vfl locate`'s pairs.parquet.")
    try:
        table = table.select(SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{name}: a column has another type than in `vfl locate`'s pairs.parquet ({error}).") from None
    if holed := [column for column in [*KEY, "kept", "changed"] if table[column].null_count]:
        raise InputError(f"{name}: columns {', '.join(holed)} have empty cells.")
    if unknown := set(pc.unique(table["swap"]).to_pylist()) - set(SWAPS):
        raise InputError(f"{name}: swap is {sorted(unknown)[0]!r}; expected one of {', '.join(SWAPS)}.")
    return table


def pending(records: pa.Table, function: str, pair_ids: Iterable[str], blocks: Iterable[tuple[int, int]]) -> list[str]:
    """The pairs, in the order given, that lack a source-swap row for one of the blocks (first, last)."""
    rows = records.filter((pc.field("function") == function) & (pc.field("swap") == "source"))
    present: dict[str, set[tuple[int, int]]] = {}
    for pair_id, first, last in zip(*(rows[name].to_pylist() for name in ("pair_id", "first", "last")), strict=True):
        present.setdefault(pair_id, set()).add((first, last))
    wanted = set(blocks)
    return [pair_id for pair_id in pair_ids if not wanted <= present.get(pair_id, set())]


def _parts(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.parquet") if path.stem.isdigit())
