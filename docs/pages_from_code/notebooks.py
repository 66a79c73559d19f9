"""The notebooks as pages to read, and the table of them; buttons for Colab where the repository has an address."""

import json
import re
import tomllib
from typing import Any

from pages_from_code.sources import ROOT

NAMES = ("find", "train", "choose")
FOLDER = ROOT / "notebooks"
_GITHUB = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")


def pages() -> dict[str, str]:
    """Address and text of each notebook's page: its text, and its cells of code, without what they print."""
    return {f"notebooks/{name}.md": page(name) for name in NAMES}


def page(name: str) -> str:
    """A notebook as Markdown, with its button below the title."""
    (title, *others) = [_text(cell) for cell in _cells(name)]
    heading, _, rest = title.partition("\n")
    return "\n\n".join([heading, *filter(None, [button(name, repository())]), rest.strip(), *others]) + "\n"


def table() -> str:
    """A row a notebook: what it is about, and where it opens."""
    address = repository()
    rows = ["| notebook | |", "|---|---|"]
    for name in NAMES:
        title = _text(_cells(name)[0]).partition("\n")[0].removeprefix("# ")
        rows.append(f"| [{title}](notebooks/{name}.md), `notebooks/{name}.ipynb` | {button(name, address)} |")
    return "\n".join([*rows, "", _colab(address)])


def repository() -> str | None:
    """The repository's address, as pyproject.toml names it once it is published."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"].get("Repository")


def button(name: str, address: str | None) -> str:
    """A link that opens a notebook in Colab; empty where the repository is not on GitHub, from which Colab reads."""
    if address is None or not (found := _GITHUB.fullmatch(address)):
        return ""
    link = f"https://colab.research.google.com/github/{found[1]}/blob/main/notebooks/{name}.ipynb"
    return f"[Open in Colab]({link}){{ .md-button }}"


def _colab(address: str | None) -> str:
    if address is None:
        return (
            "Buttons that open them in Colab stand here once `Repository` is among the `[project.urls]` of "
            "`pyproject.toml`: the repository has no public address yet."
        )
    return f'In Colab, install the library first: `%pip install "vfl[train,select] @ git+{address}"`.'


def _cells(name: str) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return cells


def _text(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    return source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
