"""Files of the Hugging Face hub that are read where they lie: of a commit, and only the bytes that are asked for."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vfl.io.hub import commit_of, hub, is_address, read_address, with_fetched


def pinned(value: str | Path) -> str:
    """An address with the commit that it means now.

    Raises:
        InputError: when it is not there, or can't be reached and never was.
    """
    address = read_address(value)
    return str(replace(address, revision=commit_of(address)))


def with_pinned(rows: Any) -> Any:
    """What a setting says of rows: addresses of them pinned; what else stands beside their paths is fetched."""
    if isinstance(rows, Mapping):
        return {key: with_pinned(value) if key == "path" else with_fetched(value) for key, value in rows.items()}
    if isinstance(rows, (list, tuple)):
        return type(rows)(with_pinned(each) for each in rows)
    return pinned(rows) if is_address(rows) else rows


def files_at(value: str | Path) -> list[Path]:
    """The addresses of all files below one that is pinned; none where it is a file itself."""
    address = read_address(value)
    names = hub().list_repo_files(address.repo, repo_type=address.kind, revision=address.revision)
    below = f"{address.path}/" if address.path else ""
    return [Path(str(replace(address, path=name))) for name in sorted(names) if name.startswith(below)]


def open_at(value: str | Path) -> Any:
    """A file at an address with a commit, to be read from any place on: only what is read is sent."""
    from huggingface_hub import HfFileSystem  # brings fsspec along

    address = read_address(value)
    files = HfFileSystem(endpoint=os.environ.get("HF_ENDPOINT") or None)
    kind = "datasets/" if address.kind == "dataset" else ""
    # Nothing is read ahead: whoever reads knows what is wanted.
    return files.open(f"{kind}{address.repo}@{address.revision}/{address.path}", cache_type="none")
