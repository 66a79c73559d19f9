"""Parts of a scoring run: rows of the data by number, each part a file that appears whole or not at all.

    scores/settings.yaml        the settings of the run that began
    scores/plan.json            what is scored and how, written before the first part
    scores/parts/*.parquet      the score table, a file a part
    scores/errors.parquet       rows that could not be scored
    scores/manifest.json        the plan with counts and versions, written last: a folder with it is a finished run

While it runs, rows.parquet says where each row of the data begins, failed/ holds each part's errors and claims/ who
works on what. A part is done when its file in parts/ is there, so that a run killed at any moment loses only the parts
that were being scored.
"""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from vfl.data import BadRow, Sample
from vfl.data.reading import Data
from vfl.data.uids import Named
from vfl.errors import InputError
from vfl.functionmap import PIXELS
from vfl.io.atomic import replacing
from vfl.io.json_files import write_json
from vfl.io.run_folder import SETTINGS, under_new_names
from vfl.io.versions import versions
from vfl.select.shards.data_files import differences
from vfl.select.shards.part_files import ALL_ERRORS, OTHER_RUN, RUN, foreign, part_name, problem_of
from vfl.select.shards.row_index import INDEX, RowIndex
from vfl.select.shards.score_table import ERRORS, Part, schema

logger = logging.getLogger(__name__)

PLAN, MANIFEST = "plan.json", "manifest.json"
FULL = "What was finished is kept: make room and run the same command again, or give another --out."
PARTS, FAILED, CLAIMS = "parts", "failed", "claims"
KIND = "vfl scores"
SHOWN = 3
"""Files whose change is told."""
Rows = Iterator[Sample | BadRow]


class Plan(BaseModel):
    """What a folder of scores holds, or will.

    Attributes:
        model: which model, in which type, and its number of parameters.
        map: path and hash of the function map, or None.
        functions: function -> layers that are ablated.
        together: of functions with the same layers, the name that they share -> the functions.
        measured: all else that the scores depend on.
        sources: path, size, time and hash of each file of the data.
        rows: of the data, bad ones included.
        shard_rows: rows a part.
        settings: of the run that began.
    """

    model_config = ConfigDict(extra="forbid")

    model: dict[str, Any]
    map: dict[str, Any] | None
    functions: dict[str, list[int]]
    together: dict[str, list[str]] = {}
    measured: dict[str, Any]
    sources: list[dict[str, Any]]
    rows: int
    shard_rows: int
    settings: dict[str, Any]

    @property
    def num_parts(self) -> int:
        return -(-self.rows // self.shard_rows)

    def rows_of(self, part: int) -> int:
        """How many rows of the data a part stands for."""
        return min(self.shard_rows, self.rows - part * self.shard_rows)


def read_plan(out: Path) -> Plan | None:
    """The plan in a folder, if there is one that can be read: a finished run's manifest holds it too.

    Without it, a run plans anew. What it plans by is in each part, so that parts of another run are known as such.
    """
    for name in (PLAN, MANIFEST):
        try:
            content = json.loads((out / name).read_text(encoding="utf-8"))
            return Plan.model_validate({key: content[key] for key in Plan.model_fields})
        except FileNotFoundError:
            continue
        except (ValueError, LookupError, TypeError) as error:
            logger.warning("%s can't be read (%s)", out / name, " ".join(str(error).split())[:200])
    return None


def repair(out: Path, plan: Plan) -> None:
    """Make a folder whose files were lost or damaged one of a run in progress, which scores again what is missing.

    Raises:
        InputError: files of another run are among the parts.
    """
    facts = plan.model_dump(mode="json")
    ended = (out / MANIFEST).exists()
    strange = [(file, "is no part of this run") for file in foreign(out / PARTS, plan.num_parts)]
    for part in range(plan.num_parts):
        file = out / PARTS / f"{part_name(part)}.parquet"
        # Who scores again what has ended comes for the sake of damage: then it is looked for in every page.
        problem = problem_of(file, part, facts, whole=ended)
        if problem == OTHER_RUN:
            strange.append((file, problem))
        elif problem is not None and file.exists():
            logger.warning("%s %s: it is scored again", file, problem)
            file.unlink()
    if strange:
        file, problem = strange[0]
        raise InputError(f"{file} {problem}; move it away and run this again, or use --overwrite to score all anew.")
    if missing(out, plan):
        _leave_older(out, plan)
    if _is_finished(out) and not missing(out, plan):
        return
    (out / "classes.parquet").unlink(missing_ok=True)
    write_json(out / PLAN, facts)  # it may be the manifest's
    (out / MANIFEST).unlink(missing_ok=True)
    _restore_errors(out, plan)


def _leave_older(out: Path, plan: Plan) -> None:
    """Remove parts of a version with other columns, so that all parts come to have the same."""
    columns = schema(plan.functions).names
    for part in sorted(set(range(plan.num_parts)) - set(missing(out, plan))):
        file = out / PARTS / f"{part_name(part)}.parquet"
        if pq.read_schema(file).names != columns:
            logger.warning("%s was written by another version: it is scored again", file)
            file.unlink()


def _is_finished(out: Path) -> bool:
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        scored = sum(pq.read_metadata(file).num_rows for file in (out / PARTS).glob("*.parquet"))
        failed = pq.read_metadata(out / ALL_ERRORS).num_rows
        counts = manifest["counts"]
        return bool(manifest["kind"] == KIND and (scored, failed) == (counts["scored"], counts["errors"]))
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException):
        return False


def _restore_errors(out: Path, plan: Plan) -> None:
    """The errors of each part that is done, from those of the run; a part that has lost its own is scored again."""
    try:
        errors = pq.read_table(out / ALL_ERRORS, schema=ERRORS)
    except (OSError, ValueError, pa.ArrowException):
        errors = ERRORS.empty_table()
    for part in sorted(set(range(plan.num_parts)) - set(missing(out, plan))):
        name = f"{part_name(part)}.parquet"
        if (out / FAILED / name).exists():
            continue
        first, rows = part * plan.shard_rows, plan.rows_of(part)
        place = errors["position"]
        own = errors.filter(pc.and_(pc.greater_equal(place, first), pc.less(place, first + rows)))
        if len(own) + pq.read_metadata(out / PARTS / name).num_rows == rows:
            with replacing(out / FAILED / name) as temporary:
                pq.write_table(own, temporary)
        else:
            logger.warning("%s has fewer rows than it had: it is scored again", out / PARTS / name)
            (out / PARTS / name).unlink()


def check_same(out: Path, there: Plan, here: Plan) -> None:
    """Raise InputError unless the folder's plan is this run's, so that its parts are what this run would make."""
    pairs: dict[str, tuple[Any, Any]] = {
        "functions": (there.functions, here.functions),
        "shard_rows": (there.shard_rows, here.shard_rows),
        "map": ((there.map or {}).get("sha256"), (here.map or {}).get("sha256")),
    }
    for before, now in ((there.model, here.model), (under_new_names(there.measured, here.measured), here.measured)):
        pairs |= {key: (before.get(key), now.get(key)) for key in {**before, **now}}
    if there.model.get("weights_sha256") and here.model.get("weights_sha256"):
        del pairs["id"]  # a folder may have been moved
    if "max_pixels" not in there.model:  # not told before; `encoding` holds them too
        pairs = {key: pair for key, pair in pairs.items() if key not in PIXELS}
    elif any(there.model.get(name) != here.model.get(name) for name in PIXELS):
        del pairs["encoding"]  # whose hash would say the same again
    other = [f"{key}: {then!r} then, {now!r} now" for key, (then, now) in pairs.items() if then != now]
    changed = differences(there.sources, here.sources)
    if changed:
        other.append(f"data: {', '.join(changed[:SHOWN])}{' and more' if len(changed) > SHOWN else ''}")
    if other:
        raise InputError(
            f"{out} holds scores of another run ({'; '.join(other)}). Use the same settings, --overwrite to replace "
            "them, or another --out folder."
        )


def clear(out: Path) -> None:
    """Remove a run's results from its folder, and nothing else.

    Raises:
        InputError: the folder holds other files and no run.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out} is a file; name a folder.")
    if any(out.iterdir()) and not any((out / name).exists() for name in (PLAN, MANIFEST, CLAIMS)):
        raise InputError(f"{out} holds other files; name another folder.")
    made = ("classes.parquet", "mean.safetensors", "image-hashes.parquet")
    for name in (MANIFEST, INDEX, ALL_ERRORS, *made):
        (out / name).unlink(missing_ok=True)
    for name in (PARTS, FAILED, CLAIMS):
        shutil.rmtree(out / name, ignore_errors=True)
    # Last, since they say what the parts are of: what a kill leaves is an unfinished run.
    for name in (SETTINGS, PLAN):
        (out / name).unlink(missing_ok=True)


def is_done(out: Path, part: int) -> bool:
    """Whether a part's scores are there."""
    return (out / PARTS / f"{part_name(part)}.parquet").exists()


def missing(out: Path, plan: Plan) -> list[int]:
    """The parts that are not done."""
    there = {file.name for file in (out / PARTS).glob("*.parquet")}
    return [part for part in range(plan.num_parts) if f"{part_name(part)}.parquet" not in there]


def save(out: Path, part: int, scores: Part, run: str = "") -> None:
    """Write a part: its errors, and then its scores, which make it done. `run` is the digest of the plan."""
    if is_done(out, part):  # by another process that took this one for dead
        return
    marked = scores.table.replace_schema_metadata({RUN: run})
    for folder, table in ((FAILED, scores.errors), (PARTS, marked)):
        with replacing(out / folder / f"{part_name(part)}.parquet") as temporary:
            pq.write_table(table, temporary, write_page_checksum=True)


class Walker:
    """The rows of parts. Without an index, read from the data's beginning on, past those of other processes.

    Args:
        data: whose rows they are.
        plan: how they are cut.
        index: where rows begin.
    """

    def __init__(self, data: Data, plan: Plan, index: RowIndex | None = None) -> None:
        self.data, self.plan, self.index = data, plan, index
        self.rows: Rows = iter(())
        self.position = -1  # not begun

    def rows_of(self, part: int) -> Iterator[tuple[int, Sample | BadRow]]:
        """Numbered rows of a part.

        Raises:
            InputError: the data ends before it.
        """
        first = part * self.plan.shard_rows
        if self.index is not None and self.position != first:
            place, uids = self.index.start(first)
            self.rows, self.position = self.data.rows_from(place, Named(uids)), first
        elif not 0 <= self.position <= first:
            self.rows, self.position = self.data.rows(), 0
        for _ in islice(self.rows, first - self.position):
            pass
        self.position = first
        count = self.plan.rows_of(part)
        for row in islice(self.rows, count):
            yield self.position, row
            self.position += 1
        if self.position != first + count:
            raise InputError(
                f"The data ends at row {self.position} of {self.plan.rows}: it has changed. Score it anew."
            )


def finish(out: Path, plan: Plan) -> dict[str, Any]:
    """Gather the errors and write the manifest; what it says. Memory holds one part at a time."""
    counts: Counter[str] = Counter()
    with replacing(out / ALL_ERRORS) as temporary, pq.ParquetWriter(temporary, ERRORS) as writer:
        for part in range(plan.num_parts):
            failed = pq.read_table(out / FAILED / f"{part_name(part)}.parquet")
            counts["errors"] += len(failed)
            if len(failed):
                writer.write_table(failed)
            counts.update(_count(out / PARTS / f"{part_name(part)}.parquet"))
    names = ("rows", "scored", "errors", "vision", "text", "solved", "full_passes", "answer_tokens", "tokens")
    manifest = {
        "kind": KIND,
        **plan.model_dump(mode="json"),
        "parts": plan.num_parts,
        "counts": {"rows": plan.rows} | {name: counts[name] for name in names[1:]},
        "versions": versions("pyarrow"),
    }
    write_json(out / MANIFEST, manifest)
    return manifest


def tidy(out: Path) -> None:
    """Remove what only a run in progress needs, and what killed processes left."""
    (out / INDEX).unlink(missing_ok=True)
    for name in (FAILED, CLAIMS):
        shutil.rmtree(out / name, ignore_errors=True)
    for file in [*out.glob(".*.tmp"), *(out / PARTS).glob(".*.tmp")]:
        file.unlink(missing_ok=True)


def _count(part: Path) -> dict[str, int]:
    names = ["kind", "exact", "full_passes", "answer_tokens", "text_tokens", "image_tokens"]
    columns = pq.read_table(part, columns=names).to_pydict()
    return {
        "scored": len(columns["kind"]),
        "vision": columns["kind"].count("vision"),
        "text": columns["kind"].count("text"),
        "solved": sum(map(bool, columns["exact"])),
        "full_passes": sum(map(bool, columns["full_passes"])),
        "answer_tokens": sum(columns["answer_tokens"]),
        "tokens": sum(columns["text_tokens"]) + sum(columns["image_tokens"]),
    }
