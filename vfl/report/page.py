"""Self-contained pages: where their templates lie, and what they share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vfl.report.words import interval, layer_list, percent

SHARED = Path(__file__).resolve().parent


def environment(folder: Path) -> Environment:
    """Templates of a report's own folder, then those that all share.

    Everything is escaped: labels, answers and model names are written by others.
    """
    env = Environment(
        loader=FileSystemLoader([folder, SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(percent=percent, interval=interval, layers=layer_list)
    return env


def flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """{"choice": {"cap": 3}} -> [("choice.cap", "3")]."""
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{key}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            rows.append((f"{prefix}{key}", text))
    return rows
