"""Printed numbers of a paper beside measured ones."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from vfl.io.atomic import replacing

if TYPE_CHECKING:
    from vfl.measure.paper import Published

PUBLISHED = "published.json"
Number = float | None


@dataclass(frozen=True)
class Beside:
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


def compare(published: Iterable["Published"], results: Mapping[str, Mapping[str, Any]]) -> list[Beside]:
    """Every printed number beside ours.

    Args:
        published: what is printed.
        results: set -> metric -> result (vfl/metrics/result.py).
    """
    return [one for row in published for one in _rows(row, results[row.set].get(row.metric))]


def save(folder: Path, title: str, source: str, model: str, beside: list[Beside]) -> Path:
    """Write published.json, whole or not at all."""
    content = {"title": title, "source": source, "model": model, "numbers": [asdict(one) for one in beside]}
    with replacing(folder / PUBLISHED) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder / PUBLISHED


def beside_table(title: str, beside: Iterable[Beside]) -> Table:
    """Both numbers for the terminal."""
    table = Table(title=Text(title), box=SIMPLE_HEAD)
    for heading in ("what", "set", "at", "published", "ours", "95 % CI", "n"):
        table.add_column(heading, justify="left" if heading in ("what", "set") else "right")
    for one in beside:
        printed = f"{'> ' if one.relation == 'above' else ''}{one.published:g}"
        ours = one.reason if one.ours is None else f"{one.ours:.3g}"
        ends = "" if one.low is None or one.high is None else f"{one.low:.3g} to {one.high:.3g}"
        cells = (one.what, one.set, "" if one.at is None else f"{one.at:g}", printed, ours, ends)
        table.add_row(*map(Text, (*cells, "" if one.n is None else str(one.n))))
    return table


def _rows(row: "Published", result: Mapping[str, Any] | None) -> list[Beside]:
    name = row.scalar or row.curve or ""
    points = [None] if row.scalar else list(row.at)
    printed = [row.value] if row.value is not None else list(row.values)
    found = []
    for at, number in zip(points, printed, strict=True):
        ours, low, high, n, reason = _ours(row, at, result)
        given = (row.what, row.set, row.metric, name, at, row.relation, float(number))
        found.append(Beside(*given, ours, low, high, n, reason))
    return found


def _ours(
    row: "Published", at: Number, result: Mapping[str, Any] | None
) -> tuple[Number, Number, Number, int | None, str]:
    if result is None:
        return None, None, None, None, "not measured"
    one = result["scalars"].get(row.scalar) if row.scalar else _at(result["curves"].get(row.curve), at)
    if one is None or one["value"] is None:
        return None, None, None, None, "no such number"
    if row.minus is None:
        return one["value"], one["low"], one["high"], one["n"], ""
    base = result["scalars"].get(row.minus)
    if base is None or base["value"] is None:
        return None, None, None, None, f"no {row.minus}"
    # The difference of two shares over the same questions: neither's interval is its own.
    return base["value"] - one["value"], None, None, one["n"], ""


def _at(curve: Mapping[str, Any] | None, at: Number) -> dict[str, Any] | None:
    if curve is None or at not in curve["at"]:
        return None
    place = list(curve["at"]).index(at)
    return {**{key: curve[key][place] for key in ("value", "low", "high")}, "n": curve["n"]}
