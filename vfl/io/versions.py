"""The versions that a result depends on: one record for all that writes results."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from platform import python_version

ALWAYS = ("vfl", "torch", "transformers", "numpy", "pillow")


def versions(*more: str) -> dict[str, str]:
    """Version of Python and of each package; one that is not installed (an extra) is left out.

    Args:
        more: packages of an extra that this result depends on too, such as peft.
    """
    installed = {name: _version(name) for name in (*ALWAYS, *more)}
    return {"python": python_version(), **{name: known for name, known in installed.items() if known}}


@cache
def _version(name: str) -> str | None:
    """Read once a process: a package's metadata are a long text."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
