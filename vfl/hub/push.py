"""A folder's results in a repository of the hub, in one commit: all of them or nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

from vfl.errors import InputError
from vfl.hub.contents import OURS, README, contents_of
from vfl.io.hub import HTTPError, hub


@dataclass(frozen=True)
class Pushed:
    """What was pushed.

    Attributes:
        address: where commands find it, such as hf://datasets/ORG/NAME.
        page: for people.
        what: was pushed, such as "adapter".
        files: how many.
        bytes: of them all.
    """

    address: str
    page: str
    what: str
    files: int
    bytes: int


def push(
    folder: str | Path, repo: str, *, private: bool = False, report: bool = False, message: str | None = None
) -> Pushed:
    """Put an adapter (a training run's, too), a merged model, a map or rows into a repository, in one commit.

    The repository is made where there is none. Parts of rows or weights that were there and are none of these go; a
    README that somebody wrote there stays, unless the folder has one of its own.

    Args:
        folder: what a command wrote.
        repo: ORG/NAME.
        private: of a repository that is made; one that is there must be.
        report: with report.html and evaluation.json, which name the run's settings and paths.
        message: of the commit.

    Raises:
        InputError: nothing to push, no such name, a repository that is public though a private one was asked for,
            nobody is logged in, or the hub can't be reached.
    """
    found = contents_of(Path(folder), report=report)
    name = _checked(repo)
    api = hub()
    with _explained(name):
        there: list[str] = []
        if not api.repo_exists(name, repo_type=found.kind):
            api.create_repo(name, repo_type=found.kind, private=private or None)
        else:
            if private and not api.repo_info(name, repo_type=found.kind).private:
                raise InputError(
                    f"{name} is there, and public: nothing was pushed. Make it private, or leave --private out."
                )
            there = api.list_repo_files(name, repo_type=found.kind)
        files = {place: _content(content, name) for place, content in found.files.items()}
        if README in there and isinstance(found.files.get(README), str) and not _is_ours(name, found.kind):
            del files[README]
        gone = [old for old in there if old not in files and any(fnmatch(old, each) for each in found.replaces)]
        api.create_commit(
            name,
            [
                *(CommitOperationAdd(place, content) for place, content in files.items()),
                *(CommitOperationDelete(old) for old in gone),
            ],
            repo_type=found.kind,
            commit_message=message or f"{found.what.capitalize()} by vfl push",
        )
    size = sum(len(content) if isinstance(content, bytes) else content.stat().st_size for content in files.values())
    prefix = "datasets/" if found.kind == "dataset" else ""
    return Pushed(f"hf://{prefix}{name}", f"{api.endpoint}/{prefix}{name}", found.what, len(files), size)


def _content(content: Path | str, repo: str) -> Path | bytes:
    """A file, or what is written here, which says where it lies."""
    return content.replace("ORG/NAME", repo).encode() if isinstance(content, str) else content


def _is_ours(repo: str, kind: str) -> bool:
    """Whether the page that is there was written by a push before this one."""
    with TemporaryDirectory() as folder:
        path = hub().hf_hub_download(repo, README, repo_type=kind, local_dir=folder)
        return OURS in Path(path).read_text(encoding="utf-8", errors="replace")


def _checked(repo: str) -> str:
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise InputError(
            f"{repo!r} is no name of a repository: write ORG/NAME, such as your user name and a name for it."
        )
    return repo


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """What the hub refuses, in one paragraph."""
    try:
        yield
    except HFValidationError as error:
        raise InputError(f"{repo!r} is no name that the hub takes: {_words(error)}") from error
    except LocalTokenNotFoundError as error:
        raise InputError(f"Nothing was pushed to {repo}: {_words(error)} Log in with `hf auth login`.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        hint = {
            401: " Log in with `hf auth login`, with a token that may write.",
            403: " Use a token that may write there, or another name.",
            404: " Check the name, and that you may write there.",
        }.get(status or 0, "")
        raise InputError(f"Nothing was pushed to {repo}: {_words(error)}{hint}") from error
    except (HTTPError, OSError) as error:
        raise InputError(
            f"Nothing was pushed to {repo}: the hub can't be reached ({_words(error)}) Try again."
        ) from error


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300] or type(error).__name__
    return text if text.endswith((".", "!")) else f"{text}."
