"""A folder of scores: its manifest, and its table through duckdb, in bounded memory however many rows it has."""

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vfl.errors import InputError
from vfl.io.disk import is_full
from vfl.select.shards.part_files import ALL_ERRORS, check_parts

MANIFEST = "manifest.json"
PARTS = "parts"
CLASSES = "classes.parquet"
NOT_FUNCTIONS = ("text", "none", "blind", "unsolved")
"""Classes that are no function."""
MEMORY = "1GB"
MANY_PARTS = 200
"""Parts from which on they are copied into one table: opening thousands of files for every query takes longer."""


@dataclass(frozen=True)
class ScoreFolder:
    """`functions` are those that the table has columns for, in the manifest's order."""

    path: Path
    manifest: dict[str, Any]
    functions: tuple[str, ...]

    def table(self, connection: Any) -> str:
        """The score table in SQL."""
        files = f"read_parquet({text(str(self.path / PARTS / '*.parquet'))})"
        if len(list((self.path / PARTS).glob("*.parquet"))) < MANY_PARTS:
            return files
        connection.execute(f"CREATE TABLE IF NOT EXISTS parts AS SELECT * FROM {files}")
        return "parts"

    def check_columns(self, connection: Any, names: Iterable[str]) -> None:
        """Raise InputError for scores of a version that did not record these columns."""
        there = {name for name, *_ in connection.execute(f"DESCRIBE SELECT * FROM {self.table(connection)}").fetchall()}
        if missing := [name for name in names if name not in there]:
            raise InputError(
                f"The scores in {self.path} have no column {missing[0]}: an older version wrote them. Score again with"
                " `vfl select score --overwrite`, or choose another policy, such as --policy quota."
            )

    def standing_for(self, name: str) -> int:
        """How many functions a class is of: those with the same layers have one together."""
        together = self.manifest.get("together")
        return len(together.get(name, [name])) if isinstance(together, dict) else 1

    @property
    def errors(self) -> Path | None:
        """The rows that couldn't be scored, where there are any."""
        file = self.path / ALL_ERRORS
        return file if file.is_file() else None

    @property
    def parameters(self) -> int | None:
        """The number of the scoring model's parameters."""
        found = self.manifest.get("model")
        value = found.get("parameters") if isinstance(found, dict) else None
        return value if isinstance(value, int) else None


def open_scores(path: str | Path) -> ScoreFolder:
    """The scores in a folder that `vfl select score` wrote.

    Raises:
        InputError: there are none, or the table has no functions.
    """
    import pyarrow.parquet as pq

    folder = Path(path)
    files = sorted((folder / PARTS).glob("*.parquet"))
    if not files:
        raise InputError(f"{folder} holds no scores ({PARTS}/*.parquet). Write them with `vfl select score`.")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{folder} has no {MANIFEST}: scoring hasn't ended. Run the same `vfl select score` again; it resumes."
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder / MANIFEST} can't be read ({error}). Run the same `vfl select score` again: it mends it."
        ) from None
    if not isinstance(manifest, dict):
        raise InputError(
            f"{folder / MANIFEST} is no manifest of scores. Run the same `vfl select score` again: it mends it."
        )
    check_parts(folder / PARTS, manifest)
    columns = pq.read_schema(files[0]).names
    found = [name.removeprefix("drop_") for name in columns if name.startswith("drop_")]
    named = manifest.get("functions")
    order = list(named) if isinstance(named, (dict, list)) else []
    functions = tuple([name for name in order if name in found] + [name for name in found if name not in order])
    if not functions:
        raise InputError(f"{files[0]} has no drop of a function; expected columns such as drop_counting. Score again.")
    if taken := [name for name in functions if name in NOT_FUNCTIONS]:
        raise InputError(f"A function is called {taken[0]!r}, which is the name of a class of its own; rename it.")
    return ScoreFolder(folder, manifest, functions)


@contextmanager
def database(memory: str = MEMORY, threads: int | None = None, temporary: Path | None = None) -> Iterator[Any]:
    """A duckdb connection that keeps to `memory` and puts what is more into a folder that is removed at the end.

    Args:
        memory: such as "1GB"; of duckdb's own tables and sorts.
        temporary: where to make that folder; the system's place for such if None.
    """
    try:
        import duckdb
    except ImportError as error:
        raise InputError('Selecting needs duckdb, which is not installed: pip install "vfl[select]"') from error
    with tempfile.TemporaryDirectory(prefix="vfl-select-", dir=temporary) as folder:
        settings = {"memory_limit": memory, "temp_directory": f"{folder}/spill"}
        if threads is not None:
            settings["threads"] = str(threads)
        try:
            # a file: tables made on the way go to disk where memory ends
            connection = duckdb.connect(f"{folder}/pool.duckdb", config=settings)
        except duckdb.Error as error:
            if is_full(error):
                raise InputError(_no_room(folder, memory)) from None
            raise InputError(f"duckdb doesn't start with memory {memory!r}: {error}") from None
        try:
            # A notebook without ipywidgets has no bar to turn off, and then duckdb refuses the setting.
            with suppress(duckdb.InvalidInputException):
                connection.execute("SET enable_progress_bar = false")
            yield connection
        except (duckdb.InvalidInputException, duckdb.IOException, duckdb.SerializationException) as error:
            if is_full(error):
                raise InputError(_no_room(folder, memory)) from error
            if f"/{PARTS}/" not in str(error):
                raise
            raise InputError(
                f"A part of the scores is damaged ({str(error).splitlines()[0][:300]}). Run the same `vfl select score`"
                " again: it scores what is missing."
            ) from error
        except duckdb.OutOfMemoryException as error:
            if is_full(error):
                raise InputError(_no_room(folder, memory)) from error
            first = str(error).splitlines()[0]
            raise InputError(f"The selection needs more memory than {memory} ({first}); give --memory.") from error
        finally:
            connection.close()


def _no_room(folder: str, memory: str) -> str:
    return (
        f"The disk of {Path(folder).parent} is full, where selecting puts what does not fit into {memory}. Make room,"
        " name a folder on another disk in TMPDIR, or give more --memory."
    )


def text(value: str) -> str:
    """A text in SQL."""
    return "'" + value.replace("'", "''") + "'"


def column(name: str) -> str:
    """A column's name in SQL."""
    return '"' + name.replace('"', '""') + '"'
