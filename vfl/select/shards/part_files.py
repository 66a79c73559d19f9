"""Whether the files of a folder of scores are whole, and of the run that they stand in."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vfl.errors import InputError

RUN = b"vfl_run"
"""Key in a part's metadata: the digest of the plan that it was scored by."""

ALL_ERRORS = "errors.parquet"
OTHER_RUN = "is of another run"


PART = "part-"


def part_name(part: int) -> str:
    """The name of a part's files and claims."""
    return f"{PART}{part:06}"


def number_of(name: str) -> int:
    """The part that has a name."""
    return int(name.removeprefix(PART))


def rows_of_part(part: int, rows: int, shard_rows: int) -> int:
    """How many rows of the data a part stands for."""
    return min(shard_rows, rows - part * shard_rows)


def digest_of(plan: Mapping[str, Any]) -> str:
    """What the scores of a plan depend on, so that a part of another run is known as one."""
    model = {key: value for key, value in plan["model"].items() if key != "id"}
    facts = [model, plan["functions"], plan["measured"], (plan["map"] or {}).get("sha256"), plan["shard_rows"]]
    return sha256(json.dumps([*facts, [source["sha256"] for source in plan["sources"]]]).encode()).hexdigest()[:16]


def problem_of(file: Path, part: int, plan: Mapping[str, Any], *, whole: bool = False) -> str | None:
    """What is wrong with a part's file, by its footer; None where nothing is.

    Args:
        whole: read all of it too, and compare its pages with their checksums.
    """
    rows, first = rows_of_part(part, plan["rows"], plan["shard_rows"]), part * plan["shard_rows"]
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            names, count, metadata = parquet.schema_arrow.names, parquet.metadata.num_rows, parquet.metadata.metadata
            ends = _ends(parquet.metadata)
            if whole:
                parquet.read()
    except FileNotFoundError:
        return "is missing"
    except (pa.ArrowException, OSError, ValueError) as error:
        return f"is cut off or damaged ({' '.join(str(error).split())[:100]})"
    if (
        (metadata or {}).get(RUN, b"").decode() != digest_of(plan)
        or "position" not in names
        or any(f"drop_{name}" not in names for name in plan["functions"])
    ):
        return OTHER_RUN
    if count > rows or (ends and not first <= ends[0] <= ends[1] < first + rows):
        return f"holds other rows than {first} to {first + rows - 1}"
    return None


def foreign(folder: Path, num_parts: int) -> list[Path]:
    """Files among the parts that have no part's name."""
    names = {f"{part_name(part)}.parquet" for part in range(num_parts)}
    return sorted(file for file in folder.glob("*.parquet") if file.name not in names)


def _ends(metadata: Any) -> tuple[int, int] | None:
    """The least and the greatest position in a file, where its footer tells."""
    column = next(n for n in range(metadata.num_columns) if metadata.schema.column(n).name == "position")
    statistics = [metadata.row_group(group).column(column).statistics for group in range(metadata.num_row_groups)]
    known = [group for group in statistics if group is not None and group.has_min_max]
    return (min(group.min for group in known), max(group.max for group in known)) if known else None


def _errors_lost(file: Path, count: int) -> list[str]:
    """What is wrong with the file of the rows that could not be scored."""
    try:
        there = pq.read_metadata(file).num_rows
    except FileNotFoundError:
        return [f"{file.name} is missing"]
    except (pa.ArrowException, OSError) as error:
        return [f"{file.name} is cut off or damaged ({' '.join(str(error).split())[:100]})"]
    return [f"{file.name} holds {there:,} rows of {count:,}"] if there != count else []


def check_parts(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raise InputError, with what is wrong, unless all parts that a manifest tells of are there and whole.

    Args:
        folder: of the parts.
    """
    if not {"rows", "shard_rows", "parts", "counts", "measured"} <= manifest.keys():
        return  # made by hand
    names = [f"{part_name(part)}.parquet" for part in range(manifest["parts"])]
    if strange := foreign(folder, manifest["parts"]):
        raise InputError(f"{strange[0]} is no part of this run; move it away, and run this again.")
    problems = []
    for part, name in enumerate(names):
        problem = problem_of(folder / name, part, manifest)
        if problem is not None:
            problems.append(f"{name} {problem}")
    if not problems:
        rows = sum(pq.read_metadata(folder / name).num_rows for name in names)
        if rows != manifest["counts"]["scored"]:
            problems.append(f"{rows:,} rows, of {manifest['counts']['scored']:,} that were scored")
        problems += _errors_lost(folder.parent / ALL_ERRORS, manifest["counts"]["errors"])
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise InputError(
            f"The scores in {folder.parent} are damaged: {'; '.join(problems[:3])}{more}. Run the same"
            " `vfl select score` again: it scores what is missing."
        )
