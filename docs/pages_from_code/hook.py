"""The hook of mkdocs.yml: pages that are made from the code are put among the written ones."""

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from mkdocs.structure.files import File, Files
from pages_from_code import (
    api,
    commands,
    errors,
    estimates,
    families,
    faults,
    floors,
    metrics,
    notebooks,
    policies,
    repository,
    settings,
)

_MARK = re.compile(r"\{\{ (\w+(?: \w+)?)(?:: (.*?))? \}\}")

MADE = {
    "estimates": estimates.table,
    "faults": faults.table,
    "fault counts": faults.counts,
    "notebooks": notebooks.table,
    "rooms": floors.table,
}
"""Marks, and what makes the text that takes their place."""


def pages() -> dict[str, str]:
    """Address and text of every page and picture that no person writes."""
    return {
        "reference/settings.md": settings.page(),
        "reference/commands.md": commands.page(),
        "reference/metrics.md": metrics.page(),
        "reference/policies.md": policies.page(),
        "reference/python.md": api.page(),
        "reference/families.md": families.page(),
        "reference/errors.md": errors.page(),
        "floors.svg": floors.picture(),
        **notebooks.pages(),
        **{address: repository.page(file) for file, address in repository.TAKEN.items()},
    }


def filled(text: str) -> str:
    """A written page with its marks filled: `{{ error: FRAGMENT }}` and those that tables are made for."""

    def fill(mark: re.Match[str]) -> str:
        if mark[1] == "error":
            return f'!!! failure ""\n    {commands.escaped(errors.quoted(mark[2]))}'
        if mark[1] in MADE:
            return MADE[mark[1]]()
        raise ValueError(f"{mark[0]} is no mark that pages know")

    return _MARK.sub(fill, text)


def on_files(files: Files, config: Any) -> Files:
    """mkdocs: add the pages."""
    for address, text in pages().items():
        files.append(File.generated(config, address, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """mkdocs: fill the marks of written pages."""
    return filled(markdown) if page.file.generated_by is None else markdown
