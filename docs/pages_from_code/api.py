"""The Python reference: one mkdocstrings entry for each public name of `vfl`."""

from collections.abc import Iterator
from importlib import import_module

import vfl
from vfl.callable_package import CallablePackage


def page() -> str:
    """The whole page."""
    parts = [
        "# Python",
        "What `import vfl` has. `vfl.locate`, `vfl.measure`, `vfl.evaluate`, `vfl.negatives` and `vfl.train` are "
        "packages that are called like functions. A map, and what `sweep`, `measure`, `evaluate`, `train`, `filter` "
        "and `negatives` return, show themselves as tables in a notebook, and `.plot()` of all but the last draws "
        "them; progress bars are the notebook's own.",
    ]
    for name, where in public():
        parts.append(f"## vfl.{name} {{ #vfl-{name.lower()} }}\n\n::: {where}\n    options:\n      heading_level: 3")
    return "\n\n".join(parts) + "\n"


def public() -> Iterator[tuple[str, str]]:
    """Public names, and the full names of what they are."""
    for name in sorted(vfl.__all__, key=str.lower):
        value = getattr(vfl, name)
        if isinstance(value, CallablePackage):
            value = getattr(import_module(f"vfl.{name}.run"), name)
        if callable(value):
            yield name, f"{value.__module__}.{value.__qualname__}"
