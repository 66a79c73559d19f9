"""Whether a folder may be written to."""

from pathlib import Path

from vfl.errors import InputError


def refuse_if_taken(path: Path, mark: str, *, overwrite: bool) -> None:
    """Raise InputError where `path` holds something that is not to be replaced.

    Args:
        mark: a file that is in every result of this kind; nothing else is ever removed.
    """
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(f"{path} is a file; name a folder.")
    if any(path.iterdir()) and not (overwrite and (path / mark).is_file()):
        kind = "results" if (path / mark).is_file() else "other files"
        raise InputError(
            f"{path} holds {kind}. " + ("Use another folder, or --overwrite." if kind == "results" else "Name another.")
        )
