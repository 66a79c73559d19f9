"""The pages of `vfl serve` as text. Everything is escaped: places, answers and settings are written by others."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment

from vfl.report.page import environment
from vfl.report.words import percent
from vfl.serve.folder import Run
from vfl.serve.samples import WAYS, Condition, Samples
from vfl.serve.swapping import Swapped
from vfl.serve.training import Compared

TEMPLATES = Path(__file__).resolve().parent
COMPARED = {"training": "/training", "map": "/maps"}
"""Kinds that have a page which sets two side by side."""


@cache
def _environment() -> Environment:
    return environment(TEMPLATES)


def _page(template: str, title: str, **values: Any) -> str:
    return _environment().get_template(template).render(title=title, **values)


def index_page(folder: str, runs: Sequence[Run], most: int) -> str:
    """All runs, a table a kind, with boxes for what can be compared."""
    kinds: dict[str, list[Run]] = {}
    for run in runs:
        kinds.setdefault(run.kind, []).append(run)
    return _page(
        "index.html.jinja", "Runs", folder=folder, kinds=kinds, compared=COMPARED, cut=most if len(runs) == most else 0
    )


def training_page(compared: Compared) -> str:
    """Training runs side by side."""
    return _page("training.html.jinja", "Training runs side by side", compared=compared)


def swap_page(
    model: str,
    asked: Mapping[str, str],
    rows: Sequence[Swapped] = (),
    pictures: Sequence[str] = (),
    error: str = "",
) -> str:
    """The form, and below it what was asked last.

    Args:
        model: whose answers they are.
        asked: fields of the form as they were sent.
        rows: the answers.
        pictures: both as data addresses.
        error: what is wrong with the question or a picture.
    """
    shown = [(row, [NOT_KNOWN if p is None else percent(p) for p in row.probability]) for row in rows]
    return _page(
        "swap.html.jinja", "Layer by layer", model=model, asked=asked, rows=shown, pictures=pictures, error=error
    )


def samples_page(run: str, conditions: Sequence[Condition], samples: Samples | None, error: str = "") -> str:
    """Rows of a run's table, below the form that filters them."""
    rows = [*conditions, *[Condition("", WAYS[0], "")] * max(1, 3 - len(conditions))]
    return _page("samples.html.jinja", "Samples", run=run, conditions=rows, ways=WAYS, samples=samples, error=error)


def error_page(message: str) -> str:
    """What went wrong, in one paragraph."""
    return _page("error.html.jinja", "Not found or not readable", message=message)


NOT_KNOWN = "–"
