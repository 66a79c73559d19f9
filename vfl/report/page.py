"""Self-contained pages: where their templates lie, and what they share."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vfl.report.charts import shade
from vfl.report.words import NONE, fixed, interval, layer_list, percent, signed

SHARED = Path(__file__).resolve().parent


@cache
def environment(folder: Path) -> Environment:
    """Templates of a report's own folder, then those that all share.

    Everything is escaped: labels, answers and model names are written by others. One environment a folder, since it
    keeps the templates that it has compiled, which costs more than to fill them in.
    """
    env = Environment(
        loader=FileSystemLoader([folder, SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(percent=percent, interval=interval, layers=layer_list, signed=signed, number=fixed)
    env.filters.update(many="{:,}".format)
    env.globals["shades"] = [shade(n / 10) for n in range(11)]
    return env


def flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """{"choice": {"cap": 3}} -> [("choice.cap", "3")]."""
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", _setting(value)))
    return rows


def _setting(value: Any) -> str:
    """A setting as a person reads it; what was left open is a dash, not None."""
    if isinstance(value, list):
        return ", ".join(map(_setting, value))
    return NONE if value is None else str(value)
