"""The pages, the blocks of code in them, and the modules that make pages."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.append(str(DOCS))  # pages_from_code

_FENCE = re.compile(r'^```(\w+)(?: title="([^"]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class CodeBlock:
    """A fenced block: its language, its title (or ""), its text."""

    language: str
    title: str
    text: str


def blocks_of(page: Path) -> list[CodeBlock]:
    """The fenced blocks of a page, in order."""
    return [CodeBlock(*match) for match in _FENCE.findall(page.read_text(encoding="utf-8"))]
