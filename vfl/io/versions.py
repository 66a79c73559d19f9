"""The versions that a result depends on: one record for all that writes results."""

from importlib.metadata import PackageNotFoundError, version
from platform import python_version

ALWAYS = ("vfl", "torch", "transformers", "numpy", "pillow")


def versions(*more: str) -> dict[str, str]:
    """Version of Python and of each package; one that is not installed (an extra) is left out.

    Args:
        more: packages of an extra that this result depends on too, such as peft.
    """
    installed = {"python": python_version()}
    for name in (*ALWAYS, *more):
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed
