"""What a data source is: the container that holds the rows, and the kind of its rows. Each is decided once."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from vfl.data import hf, jsonarray, jsonl, parquet, webdataset
from vfl.data.kinds import KINDS, Kind, kinds_of_row
from vfl.data.packed import ZSTD, packing, unpacked_head
from vfl.data.rawrow import RawRow
from vfl.data.shards import in_folder, on_hub
from vfl.errors import InputError
from vfl.io.hub import fetched, is_address, is_fetched

Container = Literal["json", "jsonl", "parquet", "hf", "webdataset"]

LOOKED_AT = 100
"""Rows among which one of a known kind must be; the first decides."""
WRITTEN = ("vfl subset", "vfl negatives")
"""The kinds of manifests of this tool's own folders of rows."""

COCO = ". COCO's annotations become questions with `vfl probes make DIR --coco FILE IMAGES`"
_PRETTY = rb"\{(?:[^\n]*,)?[ \r]*\n\s*\""
"""An object over several lines."""
_ONE_OBJECT = re.compile(_PRETTY + rb"|" + jsonarray.WRAPPED.pattern.encode())
_ARRAY_IN_LINES = re.compile(rb"\[\s*\{|" + _PRETTY + rb"|" + jsonarray.WRAPPED.pattern.encode())
"""The ending .jsonl is believed otherwise: its first line may be broken."""


@dataclass(frozen=True)
class Format:
    container: Container
    kind: Kind
    why: str
    """For a person: what was seen that decided."""


@dataclass(frozen=True)
class Source:
    """One file or dataset: where it lies and how it is read, and where relative image names begin (None: nowhere)."""

    name: str
    container: Container
    home: Path | None
    rows: Callable[..., Iterator[RawRow]]
    """Called with `only_ids=True` it may leave out everything but the ids, with `only_texts=True` the images' bytes;
    with a row's `start` it begins there; with `hashes` it may hash the file as it reads."""
    path: Path | None = None


class NoRowsError(InputError):
    """A source without any row, of which no kind can be told."""


def detect(path: str | Path, split: str | None = None) -> Format:
    """The container and kind of a file, folder or saved dataset.

    Raises:
        InputError: there is no such data, or it is of no known format: what was found and what to give.
    """
    found = sources(path, split)
    return Format(found[0].container, *kind_of(found[0]))


def sources(source: Any, split: str | None = None, *, streaming: bool = False) -> list[Source]:
    """The parts of one data source: one, or the shards of a folder in the order of their names.

    With `streaming`, parquet on the hub is not fetched.
    """
    if hf.is_dataset(source):
        hf.check_dataset(source)
        return [_dataset(source, "dataset", None)]
    if not isinstance(source, (str, Path)):
        raise InputError(f"data of type {type(source).__name__} was given; expected a path or a datasets.Dataset")
    if streaming and is_address(source):
        files = on_hub(source, split)
        return [Source(file.name, "parquet", None, partial(parquet.rows, file), file) for file in files]
    path = fetched(source)
    if not path.exists():
        raise InputError(f"the data {path} does not exist; expected a file, a folder of shards or a saved dataset")
    if path.is_dir() and hf.is_saved(path):
        return [_dataset(hf.load(path, split), path.name, path)]
    if path.is_dir() and (parts := _own(path)):
        return parts
    if path.is_dir():
        return [_file(file) for file in in_folder(path, split)]
    if split is not None:
        raise InputError(f"{path} has no splits, but the split {split!r} was asked for; leave it out")
    return [_file(path)]


def _own(folder: Path) -> list[Source]:
    """The parts of a folder that this tool wrote; its rows name images in the folder that its manifest tells."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if not isinstance(manifest, dict) or manifest.get("kind") not in WRITTEN:
        return []
    home = folder.resolve()
    for name in manifest["files"]:
        if not (folder / name).resolve().is_relative_to(home):
            raise InputError(f"{folder / 'manifest.json'} names {name!r} among its files, which lies outside of it")
    parts = [part for name in manifest["files"] for part in sources(folder / name)]
    images = None if is_fetched(folder) else manifest.get("images")
    return [replace(part, home=Path(images)) for part in parts] if images else parts


def kind_of(source: Source) -> tuple[Kind, str]:
    """The kind of a source's rows by the columns of its first row that has any known ones, and why."""
    columns: list[str] = []
    reader = source.rows(only_texts=True)
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
    raise (InputError if columns else NoRowsError)(
        f"{source.name}: {'no row of a known kind; found ' + ', '.join(columns) if columns else 'holds no rows'}."
        " Expected columns messages, or conversations, or prompt and completion, or prompt, chosen and rejected, or"
        " others of docs/data-formats.md (instruction and output, query and response, question and answer, texts);"
        f" format= names one of {', '.join(KINDS)}" + (COCO if {"images", "annotations"} <= set(columns) else "")
    )


def _file(path: Path) -> Source:
    """What a file is by its first bytes; the ending .jsonl is believed, since its first line may be broken."""
    try:
        with path.open("rb") as handle:
            head = handle.read(2**16)
    except OSError as error:
        raise InputError(f"the data {path} cannot be read: {error.strerror}") from error
    if head.startswith(b"PAR1"):
        return _source(path, "parquet", lambda **how: parquet.rows(path, **how))
    packed = packing(path)
    if packed:
        head = unpacked_head(path, 2**16)
    if head[257:262] == b"ustar" and packed != ZSTD:
        return _source(path, "webdataset", lambda only_texts=False, **how: webdataset.rows(path, **how))
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    lines = path.name.lower().removesuffix(".gz").removesuffix(".zst").endswith(".jsonl")
    if _ARRAY_IN_LINES.match(text) if lines else text.startswith(b"[") or _ONE_OBJECT.match(text):
        return _source(path, "json", lambda only_ids=False, only_texts=False, **how: jsonarray.rows(path, **how))
    if text.startswith(b"{") or (text and lines):
        return _source(path, "jsonl", lambda only_ids=False, only_texts=False, **how: jsonl.rows(path, **how))
    raise InputError(
        f"{path} {'is empty' if not text else f'begins with {head[:12]!r}'}; expected a JSON array, JSON lines, parquet"
        " or a tar archive (of a saved Hugging Face dataset, give the folder)"
    )


def _source(path: Path, container: Container, rows: Callable[..., Iterator[RawRow]]) -> Source:
    return Source(path.name, container, path.parent, rows, path)


def _dataset(dataset: Any, name: str, home: Path | None) -> Source:
    return Source(name, "hf", home, lambda only_texts=False, hashes=None, **how: hf.rows(dataset, name, **how), home)
