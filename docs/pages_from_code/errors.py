"""The texts of the errors that people meet, as the code raises them."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from pages_from_code.sources import modules, summary


@dataclass(frozen=True)
class ErrorText:
    """What an `InputError` says; `…` stands for what was given."""

    module: str
    text: str


@cache
def errors() -> tuple[ErrorText, ...]:
    """Every `InputError` that is raised with a text of its own."""
    return tuple(_raised())


def _raised() -> Iterator[ErrorText]:
    for name, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("InputError") and node.args:
                text = " ".join(literal(node.args[0]).split())
                if text.strip("… .,:;"):
                    yield ErrorText(name, text)


def literal(node: ast.expr) -> str:
    """A string or f-string with `…` for its values."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
    if isinstance(node, ast.BinOp):
        return literal(node.left) + literal(node.right)
    return "…"


def quoted(fragment: str) -> str:
    """The whole text of the one error that holds a fragment.

    Raises:
        ValueError: none does, or several that differ: the FAQ tells of an error that is no longer so.
    """
    texts = {error.text for error in errors() if fragment in error.text}
    if len(texts) != 1:
        raise ValueError(f"{len(texts)} errors of the code hold {fragment!r}; the page that quotes it must be mended")
    return texts.pop()


def page() -> str:
    """All errors by room, for those who search for one."""
    parts = [
        "# Errors",
        "Every text that bad input can end with; `…` stands for what was given. Those that people meet most are "
        "answered in the [FAQ](../faq.md).",
    ]
    rooms: dict[str, list[str]] = {}
    for error in errors():
        rooms.setdefault(error.module, []).append(error.text)
    headings = {name: summary(tree) for name, tree in modules()}
    for module, texts in rooms.items():
        listed = "\n".join(f"- `{text.replace('`', chr(39))}`" for text in dict.fromkeys(texts))
        parts.append(f"## `{module}`\n\n{headings[module]}\n\n{listed}")
    return "\n\n".join(parts) + "\n"
