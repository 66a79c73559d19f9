"""A folder's results in a repository of the hub, in one commit: all of them or nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

from vfl.errors import InputError
from vfl.hub.contents import README, contents_of
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


def push(folder: str | Path, repo: str, *, private: bool = False, message: str | None = None) -> Pushed:
    """Put an adapter, a training run's adapter and report, a merged model, a map or rows into a repository.

    The repository is made where there is none. A README that is there stays, unless the folder has one of its own.

    Args:
        folder: what a command wrote.
        repo: ORG/NAME.
        private: of a repository that is made.
        message: of the commit.

    Raises:
        InputError: nothing to push, no such name, nobody is logged in, or the hub can't be reached.
    """
    found = contents_of(Path(folder))
    name = _checked(repo)
    api = hub()
    with _explained(name):
        if not api.repo_exists(name, repo_type=found.kind):
            api.create_repo(name, repo_type=found.kind, private=private or None)
        files = dict(found.files)
        # One that somebody wrote there is not written over by one that is made here.
        if isinstance(files.get(README), str) and api.file_exists(name, README, repo_type=found.kind):
            del files[README]
        if isinstance(card := files.get(README), str):
            files[README] = card.replace("ORG/NAME", name)
        api.create_commit(
            name,
            [
                CommitOperationAdd(place, content.encode() if isinstance(content, str) else content)
                for place, content in files.items()
            ],
            repo_type=found.kind,
            commit_message=message or f"{found.what.capitalize()} by vfl push",
        )
    size = sum(
        len(content.encode()) if isinstance(content, str) else content.stat().st_size
        for content in found.files.values()
    )
    prefix = "datasets/" if found.kind == "dataset" else ""
    return Pushed(f"hf://{prefix}{name}", f"{api.endpoint}/{prefix}{name}", found.what, len(files), size)


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
    except (LocalTokenNotFoundError, HFValidationError) as error:
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
