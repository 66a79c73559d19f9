"""Folders and files of the Hugging Face hub by address, fetched once: hf://datasets/ORG/NAME, hf://ORG/NAME.

Behind the name may stand @REVISION and /PATH; a slash in a revision is written %2F. What is fetched lies in the cache
under its commit, as plain files: an address is looked up each time, and without a network it is what it was last.
"""

import glob
import logging
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import disable_progress_bars

from vfl.errors import InputError
from vfl.io.cache import cache_home, cached_folder
from vfl.io.json_files import write_text

logger = logging.getLogger(__name__)

_ADDRESS = re.compile(
    r"hf:/{1,2}(?:(?P<kind>datasets|models)/)?(?P<repo>(?!datasets/|models/)[^/@\s]+/[^/@\s]+)(?:@(?P<at>[^/]+))?(?:/(?P<path>.*))?"
)
_CODE = ["*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.py"]
"""Not fetched: pickles run what is written in them."""
KIND, LAST = "hub", "hub-last"
"""Folders of the cache: what was fetched, and what each address meant last."""
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
        at = f"@{quote(self.revision, safe='')}" if self.revision else ""
        path = f"/{self.path}" if self.path else ""
        return f"hf://{'datasets/' if self.kind == 'dataset' else ''}{self.repo}{at}{path}"


def hub() -> HfApi:
    """The hub, or whatever stands in for it (HF_ENDPOINT)."""
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)


def is_address(value: object) -> bool:
    """Whether this is a text or path of that form; a path keeps one of the two slashes."""
    return isinstance(value, (str, Path)) and str(value).startswith("hf:/")


def named(path: Path) -> str:
    """A path as text; of an address as it is written, whose two slashes a path does not keep."""
    return str(read_address(path)) if is_address(path) else str(path)


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
    commit = commit_of(address)
    name = f"{_name(address)}@{commit}"
    if address.path and (whole := cache_home() / KIND / name).is_dir():
        return _there(whole, address)
    folder = cached_folder(
        KIND,
        name + (f"@{quote(address.path, safe='')}" if address.path else ""),
        lambda folder: folder if folder.is_dir() else None,
        lambda folder: _fetch(address, commit, folder),
        doing=f"fetches {address}",
    )
    return _there(folder, address)


def is_fetched(path: Path) -> bool:
    """Whether a file or folder came from the hub, so that what it says of places is not of this machine."""
    return path.absolute().is_relative_to((cache_home() / KIND).absolute())


def with_fetched(values: Any) -> Any:
    """Nested settings in which every address has become the path of what was fetched."""
    if isinstance(values, Mapping):
        return {key: with_fetched(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return type(values)(with_fetched(value) for value in values)
    if isinstance(values, str) and values.startswith("hf://"):
        return str(fetched(values))
    return fetched(values) if isinstance(values, Path) else values


def _name(address: Address) -> str:
    return f"{address.kind}s--{address.repo.replace('/', '--')}"


def _there(folder: Path, address: Address) -> Path:
    path = folder / address.path
    if not path.exists() or not any(folder.iterdir()):
        raise InputError(
            f"{address}: there is no {address.path or 'file'} that may be read; pickles and code are not fetched."
        )
    return path


def commit_of(address: Address) -> str:
    """The commit that an address means now, or the one that it meant last where nobody can be asked.

    Raises:
        InputError: when it is not there, or can't be reached and never was.
    """
    last = cache_home() / LAST / f"{_name(address)}@{quote(address.revision or '', safe='')}"
    try:
        commit = hub().repo_info(address.repo, repo_type=address.kind, revision=address.revision).sha
        assert commit is not None
        last.parent.mkdir(parents=True, exist_ok=True)
        write_text(last, commit)
        return commit
    except HFValidationError as error:
        raise InputError(f"{address} has no name that the hub knows: {_first_line(error)}") from error
    except GatedRepoError as error:
        raise InputError(f"{address} is given out to those who were let in: ask on its page, then log in.") from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{address} is not on the hub, or not for everyone: check the name, and log in with `hf auth login` if it "
            "is private."
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(
            f"{address}: there is no revision {address.revision!r}. Leave it out, or name another."
        ) from error
    except (HTTPError, OSError) as error:
        status = getattr(getattr(error, "response", None), "status_code", 500)
        if status < 500:
            raise InputError(f"{address} is refused by the hub: {_first_line(error)}") from error
        if not last.is_file():
            raise InputError(
                f"{address} was never fetched, and the hub can't be reached ({_first_line(error)}). Connect, or give a "
                "folder of this machine."
            ) from error
        commit = last.read_text(encoding="utf-8")
        logger.warning("%s is taken as it was fetched before, at %s: the hub can't be reached", address, commit)
        return commit


def _fetch(address: Address, commit: str, folder: Path) -> None:
    path = glob.escape(address.path)
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        hub().snapshot_download(
            address.repo,
            repo_type=address.kind,
            revision=commit,
            local_dir=folder,
            allow_patterns=[path, f"{path}/**"] if path else None,
            ignore_patterns=_CODE,
        )
    except (HfHubHTTPError, HTTPError, ConnectionError) as error:
        raise InputError(f"{address} could not be fetched ({_first_line(error)}). Try again.") from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the hub's own notes of it
    _there(folder, address)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
