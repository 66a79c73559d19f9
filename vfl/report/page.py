"""Self-contained pages: where their templates lie, and what they share."""

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vfl.report.charts import COLOURS, DASHES, shade
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
    drawing = (SHARED / "drawing.js").read_text(encoding="utf-8")
    env.globals.update(
        shades=[shade(n / 10) for n in range(11)],
        most_switches=len(COLOURS) * len(DASHES),  # more lines look alike, and have no switch
        drawing=Markup(drawing),
        drawing_hash=script_hash(drawing),
    )
    return env


def script_hash(script: str) -> str:
    """What a page's policy lets one script run by, and no other."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


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
