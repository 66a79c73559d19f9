"""Which files of a folder, here or on the hub, are its data: those of one kind and one name, numbers apart."""

import re
from pathlib import Path

from vfl.errors import InputError
from vfl.io.hub import named
from vfl.io.hub_in_place import files_at, pinned

_DIGITS = re.compile(r"\d+")
SUFFIXES = (
    ".json", ".jsonl", ".parquet", ".tar", ".tar.gz", ".tgz", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst"
)  # fmt: skip
NO_DATA = ("dataset_info.json", "dataset_infos.json", "manifest.json", "state.json")
"""Files beside data that tell of it: LLaMA-Factory's, the Hub's, this tool's."""


def in_folder(folder: Path, split: str | None) -> list[Path]:
    """The data files of a folder, or of `data` in it (a repository of the Hugging Face Hub)."""
    files = _data_files(folder) or (_data_files(folder / "data") if (folder / "data").is_dir() else [])
    return _alike(folder, files, split, sorted(file.name for file in folder.iterdir()))


def on_hub(address: str | Path, split: str | None) -> list[Path]:
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
