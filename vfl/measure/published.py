"""Printed numbers of a paper beside measured ones."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from vfl.io.atomic import replacing
from vfl.measure.paper_file import Published

PUBLISHED = "published.json"
Number = float | None


@dataclass(frozen=True)
class PublishedFigure:
    """One printed number and ours; `ours` is None where it was not measured, `reason` says why."""

    what: str
    set: str
    metric: str
    name: str
    at: Number
    relation: str
    published: float
    ours: Number
    low: Number
    high: Number
    n: int | None
    reason: str = ""


def compare(published: Iterable[Published], results: Mapping[str, Mapping[str, Any]]) -> list[PublishedFigure]:
    """Every printed number beside ours.

    Args:
        published: what is printed.
        results: set -> metric -> result (vfl/metrics/result.py).
    """
    return [figure for row in published for figure in _figures(row, results[row.set].get(row.metric))]


def save(folder: Path, title: str, source: str, model: str, figures: list[PublishedFigure]) -> Path:
    """Write published.json, whole or not at all."""
    content = {"title": title, "source": source, "model": model, "numbers": [asdict(figure) for figure in figures]}
    with replacing(folder / PUBLISHED) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder / PUBLISHED


def published_table(title: str, figures: Iterable[PublishedFigure]) -> Table:
    """Both numbers for the terminal."""
    table = Table(title=Text(title), box=SIMPLE_HEAD)
    for heading in ("what", "set", "at", "published", "ours", "95 % CI", "n"):
        table.add_column(heading, justify="left" if heading in ("what", "set") else "right")
    for figure in figures:
        printed = f"{'> ' if figure.relation == 'above' else ''}{figure.published:g}"
        ours = figure.reason if figure.ours is None else f"{figure.ours:.3g}"
        ends = "" if figure.low is None or figure.high is None else f"{figure.low:.3g} to {figure.high:.3g}"
        cells = (figure.what, figure.set, "" if figure.at is None else f"{figure.at:g}", printed, ours, ends)
        table.add_row(*map(Text, (*cells, "" if figure.n is None else str(figure.n))))
    return table


def _figures(row: Published, result: Mapping[str, Any] | None) -> list[PublishedFigure]:
    name = row.scalar or row.curve or ""
    points = [None] if row.scalar else list(row.at)
    printed = [row.value] if row.value is not None else list(row.values)
    figures = []
    for at, number in zip(points, printed, strict=True):
        ours, low, high, n, reason = _ours(row, at, result)
        printed_as = (row.what, row.set, row.metric, name, at, row.relation, float(number))
        figures.append(PublishedFigure(*printed_as, ours, low, high, n, reason))
    return figures


def _ours(
    row: Published, at: Number, result: Mapping[str, Any] | None
) -> tuple[Number, Number, Number, int | None, str]:
    if result is None:
        return None, None, None, None, "not measured"
    value = result["scalars"].get(row.scalar) if row.scalar else _at(result["curves"].get(row.curve), at)
    if value is None or value["value"] is None:
        return None, None, None, None, "no such number"
    return value["value"], value["low"], value["high"], value["n"], ""


def _at(curve: Mapping[str, Any] | None, at: Number) -> dict[str, Any] | None:
    if curve is None or at not in curve["at"]:
        return None
    place = list(curve["at"]).index(at)
    return {**{key: curve[key][place] for key in ("value", "low", "high")}, "n": curve["n"]}
