"""The library's source as trees: what the pages read without importing it."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "vfl"


@cache
def modules() -> tuple[tuple[str, ast.Module], ...]:
    """Name and tree of every module of the library, by name."""
    return tuple(
        (
            ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"),
            ast.parse(path.read_text("utf-8")),
        )
        for path in sorted(LIBRARY.rglob("*.py"))
    )


def summary(tree: ast.Module) -> str:
    """The first paragraph of a module's docstring, on one line."""
    return " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())


def cell(text: str) -> str:
    """Text for one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
