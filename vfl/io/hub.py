"""Folders and files of the Hugging Face hub by address, hf://datasets/ORG/NAME[@REVISION][/PATH], fetched once.

Models have no word before the name: hf://ORG/NAME. What is fetched lies in the cache under its commit, as plain files:
an address without a revision is looked up each time, and without a network it is what was fetched last.
"""

import logging
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import disable_progress_bars

from vfl.errors import InputError
from vfl.io.cache import cache_home, cached_folder

logger = logging.getLogger(__name__)

_ADDRESS = re.compile(
    r"hf:/{1,2}(?:(?P<kind>datasets|models)/)?(?P<repo>(?!datasets/|models/)[^/@\s]+/[^/@\s]+)(?:@(?P<at>[^/]+))?(?:/(?P<path>.*))?"
)
_CODE = ["*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.py"]
"""Not fetched: pickles run what is written in them."""
KIND = "hub"
# Of the library that huggingface_hub speaks through, which was another before its version 2.
HTTPError: type[Exception] = next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")


@dataclass(frozen=True)
class Address:
    """A place on the hub.

    Attributes:
        repo: its name, ORG/NAME.
        kind: model or dataset.
        revision: branch, tag or commit; None for the default branch.
        path: of a file or folder in it; empty for all of it.
    """

    repo: str
    kind: str
    revision: str | None = None
    path: str = ""

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        path = f"/{self.path}" if self.path else ""
        return f"hf://{'datasets/' if self.kind == 'dataset' else ''}{self.repo}{at}{path}"


def hub() -> HfApi:
    """The hub, or whatever stands in for it (HF_ENDPOINT)."""
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)


def is_address(value: object) -> bool:
    """Whether this is a text or path of that form; a path keeps one of the two slashes."""
    return isinstance(value, (str, Path)) and str(value).startswith("hf:/")


def read_address(value: str | Path) -> Address:
    """The parts of an address.

    Raises:
        InputError: for anything else.
    """
    found = _ADDRESS.fullmatch(str(value))
    path = (found["path"] or "").strip("/") if found else ""
    if found is None or ".." in path.split("/"):
        raise InputError(
            f"{str(value)!r} is no address on the hub: write hf://datasets/ORG/NAME or hf://ORG/NAME, and behind it "
            "@REVISION and /PATH where they are needed."
        )
    kind = "dataset" if found["kind"] == "datasets" else "model"
    return Address(found["repo"], kind, unquote(found["at"]) if found["at"] else None, path)


def fetched(value: str | Path) -> Path:
    """The folder or file at an address, on this machine; any other path as it is.

    Raises:
        InputError: when it is not there, or can't be reached and was never fetched.
    """
    if not is_address(value):
        return Path(value)
    address = read_address(value)
    name = f"{address.kind}s--{address.repo.replace('/', '--')}"
    commit = _commit(address, name)
    part = f"--{address.path.replace('/', '--')}" if address.path else ""
    folder = cached_folder(
        KIND,
        f"{name}@{commit}{part}",
        lambda folder: folder if folder.is_dir() else None,
        lambda folder: _fetch(address, commit, folder),
        doing=f"fetches {address}",
    )
    return folder / address.path


def with_fetched(values: Any) -> Any:
    """Nested settings in which every address has become the path of what was fetched."""
    if isinstance(values, Mapping):
        return {key: with_fetched(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return type(values)(with_fetched(value) for value in values)
    if is_address(values):
        return type(values)(fetched(values)) if isinstance(values, str) else fetched(values)
    return values


def _commit(address: Address, name: str) -> str:
    """The commit that an address means now, or the one that was fetched before where nobody can be asked."""
    try:
        commit = hub().repo_info(address.repo, repo_type=address.kind, revision=address.revision).sha
        assert commit is not None
        return commit
    except GatedRepoError as error:
        raise InputError(
            f"{address} is given out to those who were let in: ask for it on its page, then log in."
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{address} is not on the hub, or not for everyone: check the name, and log in with `hf auth login` if it "
            "is private."
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(
            f"{address}: there is no revision {address.revision!r}. Leave it out, or name another."
        ) from error
    except (HfHubHTTPError, HTTPError, OSError) as error:
        part = f"--{address.path.replace('/', '--')}" if address.path else ""
        here = sorted((cache_home() / KIND).glob(f"{name}@{address.revision or '*'}{part}"), key=os.path.getmtime)
        commits = [rest for path in here if "--" not in (rest := path.name.partition("@")[2].removesuffix(part))]
        if not commits:
            raise InputError(
                f"{address} was never fetched, and the hub can't be reached ({_first_line(error)}). Connect, or give a "
                "folder of this machine."
            ) from error
        logger.warning("%s is taken as it was fetched before, at %s: the hub can't be reached", address, commits[-1])
        return commits[-1]


def _fetch(address: Address, commit: str, folder: Path) -> None:
    if not sys.stderr.isatty():
        disable_progress_bars()
    wanted = None if not address.path else [address.path, f"{address.path}/**"]
    try:
        hub().snapshot_download(
            address.repo,
            repo_type=address.kind,
            revision=commit,
            local_dir=folder,
            allow_patterns=wanted,
            ignore_patterns=_CODE,
        )
    except (HfHubHTTPError, HTTPError) as error:
        raise InputError(f"{address} could not be fetched ({_first_line(error)}). Try again.") from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the hub's own notes of it
    if not (folder / address.path).exists() or not any(folder.iterdir()):
        raise InputError(
            f"{address}: there is no {address.path or 'file'} that may be read; pickles and code are not fetched."
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
