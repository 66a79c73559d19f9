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
from vfl.errors import InputError
from vfl.io.hub import fetched, is_address, is_fetched, named
from vfl.io.hub_in_place import files_at, pinned

Container = Literal["json", "jsonl", "parquet", "hf", "webdataset"]

_DIGITS = re.compile(r"\d+")
LOOKED_AT = 100
"""Rows among which one of a known kind must be; the first decides."""
SUFFIXES = (
    ".json", ".jsonl", ".parquet", ".tar", ".tar.gz", ".tgz", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst"
)  # fmt: skip
NO_DATA = ("dataset_info.json", "dataset_infos.json", "manifest.json", "state.json")
"""Files beside data that tell of it: LLaMA-Factory's, the Hub's, this tool's."""
WRITTEN = ("vfl subset", "vfl negatives")
"""The kinds of manifests of this tool's own folders of rows."""

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
        files = _on_hub(source, split)
        return [Source(file.name, "parquet", None, partial(parquet.rows, file), file) for file in files]
    path = fetched(source)
    if not path.exists():
        raise InputError(f"the data {path} does not exist; expected a file, a folder of shards or a saved dataset")
    if path.is_dir() and hf.is_saved(path):
        return [_dataset(hf.load(path, split), path.name, path)]
    if path.is_dir() and (parts := _own(path)):
        return parts
    if path.is_dir():
        return [_file(file) for file in _shards(path, split)]
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
    raise InputError(
        f"{source.name}: {'no row of a known kind; found ' + ', '.join(columns) if columns else 'holds no rows'}."
        " Expected columns messages, or conversations, or prompt and completion, or prompt, chosen and rejected, or"
        " others of docs/data-formats.md (instruction and output, query and response, question and answer, texts);"
        f" format= names one of {', '.join(KINDS)}"
    )


def _shards(folder: Path, split: str | None) -> list[Path]:
    """The data files of a folder, or of `data` in it (a repository of the Hugging Face Hub)."""
    files = _data_files(folder) or (_data_files(folder / "data") if (folder / "data").is_dir() else [])
    return _alike(folder, files, split, sorted(file.name for file in folder.iterdir()))


def _on_hub(address: str | Path, split: str | None) -> list[Path]:
    """The parquet files at an address, as those of a folder are found."""
    whole = Path(pinned(address))
    inside = files_at(whole)
    if not inside and whole.name.endswith(".parquet"):
        return [whole]
    here = [file for file in inside if file.parent == whole]
    below = [file for file in inside if file.parent == whole / "data"]
    data = [[file for file in folder if _is_data(file)] for folder in (here, below)]
    files = _alike(whole, data[0] or data[1], split, [file.name for file in here])
    if not files[0].name.lower().endswith(".parquet"):
        raise InputError(
            f"{named(whole)} holds {files[0].suffix} files, and streaming reads parquet from the hub where it lies: "
            "leave streaming out to have them fetched, or fetch them and name the folder"
        )
    return files


def _alike(folder: Path, files: list[Path], split: str | None, names: list[str]) -> list[Path]:
    """The data files of a folder, which must be of one kind; `names`: what lies in it."""
    if split is not None:
        some = ", ".join(file.name for file in files[:8]) or "nothing"
        files = [file for file in files if re.match(re.escape(split) + r"(?:\b|_)", file.name)]
        if not files:
            raise InputError(f"{named(folder)} has no splits called {split!r}: no file's name begins so; found {some}")
    for suffix in SUFFIXES:
        shards = [file for file in files if file.name.lower().endswith(suffix)]
        others = sorted({file.suffix for file in files if file not in shards})
        if shards and not others:
            stems = sorted({_DIGITS.sub("", file.name) for file in shards})
            if len(stems) > 1:  # train-00000.parquet beside test-00000.parquet
                raise InputError(
                    f"{named(folder)} holds files of several names ({', '.join(stems)}); name the data files, or the "
                    "split if the names begin with it"
                )
            return shards
        if shards:
            raise InputError(f"{named(folder)} holds {suffix} and {', '.join(others)} files; name the data file itself")
    inside = ", ".join(names[:8]) or "nothing"
    raise InputError(
        f"{named(folder)} is no data folder: expected one that save_to_disk wrote, or shards ending in "
        f"{', '.join(SUFFIXES)}; found {inside}"
    )


def _data_files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if file.is_file() and _is_data(file)]


def _is_data(file: Path) -> bool:
    name = file.name
    return not name.startswith(".") and name.lower().endswith(SUFFIXES) and name not in NO_DATA


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
