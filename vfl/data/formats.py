"""What a data source is: the container that holds the rows, and the kind of its rows. Each is decided once."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from vfl.data import hf, jsonarray, jsonl, parquet, webdataset
from vfl.data.kinds import KINDS, Kind, kinds_of_row
from vfl.data.rawrow import RawRow
from vfl.errors import InputError

Container = Literal["json", "jsonl", "parquet", "hf", "webdataset"]

_DIGITS = re.compile(r"\d+")
LOOKED_AT = 100
"""Rows among which one of a known kind must be; the first decides."""
SUFFIXES = (".json", ".jsonl", ".parquet", ".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class Format:
    container: Container
    kind: Kind
    why: str
    """For a person: what was seen that decided."""


@dataclass(frozen=True)
class Source:
    """One file or dataset: how its rows are read, and where relative image names begin (None: nowhere)."""

    name: str
    container: Container
    home: Path | None
    rows: Callable[..., Iterator[RawRow]]
    """Called with `only_ids=True` it may leave out everything but the ids."""


def detect(path: str | Path, split: str | None = None) -> Format:
    """The container and kind of a file, folder or saved dataset.

    Raises:
        InputError: there is no such data, or it is of no known format: what was found and what to give.
    """
    found = sources(path, split)
    return Format(found[0].container, *kind_of(found[0]))


def sources(source: Any, split: str | None = None) -> list[Source]:
    """The parts of one data source: one, or the shards of a folder in the order of their names."""
    if hf.is_dataset(source):
        hf.check_dataset(source)
        return [_dataset(source, "dataset", None)]
    if not isinstance(source, (str, Path)):
        raise InputError(f"data of type {type(source).__name__} was given; expected a path or a datasets.Dataset")
    path = Path(source)
    if not path.exists():
        raise InputError(f"the data {path} does not exist; expected a file, a folder of shards or a saved dataset")
    if path.is_dir() and hf.is_saved(path):
        return [_dataset(hf.load(path, split), path.name, path)]
    if split is not None:
        raise InputError(f"{path} has no splits, but the split {split!r} was asked for; leave it out")
    return [_file(file) for file in (_shards(path) if path.is_dir() else [path])]


def kind_of(source: Source) -> tuple[Kind, str]:
    """The kind of a source's rows by the columns of its first row that has any known ones, and why."""
    columns: list[str] = []
    reader = source.rows()
    for raw in islice(reader, LOOKED_AT):
        if raw.row is None:
            columns = columns or [raw.problem]
            continue
        kinds = kinds_of_row(raw.row)
        if len(kinds) == 1:
            return kinds[0], f"{raw.where} has {', '.join(raw.row)}"
        if kinds:
            raise InputError(
                f"{raw.where} could be {' or '.join(kinds)} (it has {', '.join(raw.row)}); say which with format="
            )
        columns = list(raw.row)
    raise InputError(
        f"{source.name}: {'no row of a known kind; found ' + ', '.join(columns) if columns else 'holds no rows'}."
        " Expected columns messages, or conversations, or prompt and completion, or prompt, chosen and rejected, or"
        " others of docs/data-formats.md (instruction and output, query and response, question and answer, texts);"
        f" format= names one of {', '.join(KINDS)}"
    )


def _shards(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    for suffix in SUFFIXES:
        shards = [file for file in files if file.name.endswith(suffix)]
        others = sorted({file.suffix for file in files if file.name.endswith(SUFFIXES) and file not in shards})
        if shards and not others:
            names = sorted({_DIGITS.sub("", file.name) for file in shards})
            if len(names) > 1:  # train-00000.parquet beside test-00000.parquet
                raise InputError(f"{folder} holds files of several names ({', '.join(names)}); name the data files")
            return shards
        if shards:
            raise InputError(f"{folder} holds {suffix} and {', '.join(others)} files; name the data file itself")
    inside = ", ".join(file.name for file in sorted(folder.iterdir())[:8]) or "nothing"
    raise InputError(
        f"{folder} is no data folder: expected one that save_to_disk wrote, or shards ending in {', '.join(SUFFIXES)};"
        f" found {inside}"
    )


def _file(path: Path) -> Source:
    """What a file is by its first bytes; only the ending .jsonl is believed, since its first line may be broken."""
    try:
        with path.open("rb") as handle:
            head = handle.read(2**16)
    except OSError as error:
        raise InputError(f"the data {path} cannot be read: {error.strerror}") from error
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"PAR1"):
        return Source(path.name, "parquet", path.parent, lambda only_ids=False: parquet.rows(path, only_ids=only_ids))
    if head.startswith(b"\x1f\x8b") and not path.name.endswith((".tar.gz", ".tgz")):
        raise InputError(f"{path} is packed with gzip; unpack it, or name it .tar.gz if it is an archive")
    if head[257:262] == b"ustar" or head.startswith(b"\x1f\x8b"):
        return Source(
            path.name, "webdataset", path.parent, lambda only_ids=False: webdataset.rows(path, only_ids=only_ids)
        )
    if text.startswith(b"[") and path.suffix != ".jsonl":
        return Source(path.name, "json", path.parent, lambda only_ids=False: jsonarray.rows(path))
    if text.startswith(b"{") or (text and path.suffix == ".jsonl"):
        return Source(path.name, "jsonl", path.parent, lambda only_ids=False: jsonl.rows(path))
    raise InputError(
        f"{path} {'is empty' if not text else f'begins with {head[:12]!r}'}; expected a JSON array, JSON lines, parquet"
        " or a tar archive (of a saved Hugging Face dataset, give the folder)"
    )


def _dataset(dataset: Any, name: str, home: Path | None) -> Source:
    return Source(name, "hf", home, lambda only_ids=False: hf.rows(dataset, name, only_ids=only_ids))
