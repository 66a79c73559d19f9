"""A metric's result as what is drawn and tabulated, whatever the metric: the result's form decides (metrics/result.py).

Names are read from their slashes: "cosine" curves are "vision" and "text", two lines of one panel; "counting/accuracy"
is the line "accuracy" of the panel "counting"; "counting/object to last_token/drop" is the line "object to last_token"
of a panel "counting: drop", and
"counting/early/top" the line "top" of "counting: early". Lines of different units never share a panel.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vfl.metrics.head_masking import STAGES, layers_of_stage
from vfl.metrics.spec import SHARE, Metric
from vfl.report.cloud import Cloud
from vfl.report.dots import Dot
from vfl.report.heat import Heat
from vfl.report.lines import Panel, Series
from vfl.report.scales import finite
from vfl.report.words import shown, spoken

ASKED = ("right", "kept")  # shares of all images asked, which fit on no axis of what becomes of those kept
LEVELS = {"no_image": "no image", "chance": "chance"}  # scalars that are drawn as levels beside accuracies
SHOWN_ROWS = 10
LISTED = 40
MOST_DOTS = 60
MOST_COLUMNS = 6


@dataclass(frozen=True)
class Numbers:
    """The scalars as a table: cells are (value, interval), empty texts where there is none."""

    headings: list[str]
    rows: list[tuple[str, list[tuple[str, str]], str]]  # name, cells, n


@dataclass(frozen=True)
class Drawn:
    """Everything that a section shows of a result."""

    panels: list[Panel]
    heats: list[Heat]
    clouds: list[Cloud]
    dots: list[Dot]
    numbers: Numbers
    facts: list[tuple[str, str]]
    ranking: tuple[list[str], list[list[str]]] | None


def drawn(result: Mapping[str, Any], spec: Metric, functions: Iterable[str] = ()) -> Drawn:
    """What to show of a result.

    Args:
        result: a metric's.
        spec: that metric, which knows the values' units.
        functions: names that may hold slashes themselves ("cvbench/depth"), so that a curve's panel is told from them.
    """
    panels = _panels(result, spec, sorted(functions, key=len, reverse=True))
    clouds = _clouds(result, spec)
    heats = _heats(result, drawn_already=[spec.scatter[0]] if clouds and spec.scatter else [])
    scalars = result["scalars"]
    dots = []
    if not panels and not heats:
        shown_as_dots = [name for name in scalars if name.rsplit("/", 1)[-1] not in ASKED]
        for name in shown_as_dots[:MOST_DOTS]:
            scalar, unit = scalars[name], spec.unit_of(name)
            if scalar["value"] is not None and (scalar["low"] is not None or unit == SHARE):
                dots.append(Dot(spoken(name), unit, scalar["value"], scalar["low"], scalar["high"], scalar["n"]))
        dots = [dot for dot in dots if dot.unit == SHARE] or dots  # shares and sizes fit on no common axis
    extra = {name: value for name, value in result.items() if name not in ("n", "scalars", "curves", "options")}
    return Drawn(panels, heats, clouds, dots, _numbers(scalars, spec), _facts(extra), _ranking(extra))


def axis_of_dots(dots: Sequence[Dot], spec: Metric) -> str:
    """What the common axis of lone numbers shows, with its unit: "share of right answers that turn wrong, %"."""
    units = list(dict.fromkeys("%" if dot.unit == SHARE else dot.unit for dot in dots))
    return ", ".join(filter(None, (spec.dots, *units)))


def _panels(result: Mapping[str, Any], spec: Metric, functions: list[str]) -> list[Panel]:
    panels: dict[tuple[str, str, str], Panel] = {}
    for name, curve in result["curves"].items():
        function = next((other for other in functions if name.startswith(f"{other}/")), name.split("/")[0])
        title, line = _laid_out(function, name, spec)
        unit = spec.unit_of(name)
        key = (title, unit, curve["axis"])
        if key not in panels:
            levels = _levels(result["scalars"], function) if unit == SHARE else {}
            panels[key] = Panel(spoken(title), curve["axis"], unit, [], levels, _places(result, curve))
        at = list(curve["at"])
        panels[key].series.append(Series(spoken(line), at, curve["value"], curve["low"], curve["high"]))
    return _on_one_scale(list(panels.values())) if spec.one_scale else list(panels.values())


def _on_one_scale(panels: list[Panel]) -> list[Panel]:
    """Each panel with the ends of all panels of its unit, intervals included."""
    ends: dict[str, list[float]] = {}
    for panel in panels:
        for line in panel.series:
            numbers = [*line.value, *(end for pair in line.intervals() for end in pair)]
            ends.setdefault(panel.unit, []).extend(number for number in numbers if finite(number))
    return [
        replace(panel, ends=(min(ends[panel.unit]), max(ends[panel.unit]))) if ends[panel.unit] else panel
        for panel in panels
    ]


def _laid_out(function: str, name: str, spec: Metric) -> tuple[str, str]:
    """Title of a curve's panel, and of its line, by the metric's layout."""
    if spec.panels == "line":
        line, _, title = name.rpartition("/")
        return title, line
    if spec.panels == "small":
        return name.removeprefix(f"{function}/"), function
    return _parts(function, name, spec)


def _levels(scalars: Mapping[str, Any], function: str) -> dict[str, float]:
    """What accuracies of a function are compared with, by its name on the page."""
    known = {label: scalars.get(f"{function}/{name}") for name, label in LEVELS.items()}
    return {label: scalar["value"] for label, scalar in known.items() if scalar and scalar["value"] is not None}


def _parts(function: str, name: str, spec: Metric) -> tuple[str, str]:
    """Title of a curve's panel, and of its line."""
    if name == function:
        return "", name
    middle, slash, last = name.removeprefix(f"{function}/").rpartition("/")
    if not slash:
        return function, last
    # A quantity of its own is shared by lines; "early/top" and "early/random" belong side by side.
    quantity = spec.own_unit(last) is not None
    return (f"{function}/{last}", middle) if quantity else (f"{function}/{middle}", last)


def _places(result: Mapping[str, Any], curve: Mapping[str, Any]) -> list[str] | None:
    """Names of the points, where the result lists what they are: windows of layers, or ways to skip."""
    listed = result.get(f"{curve['axis']}s")
    if not isinstance(listed, list) or len(listed) != len(curve["at"]):
        return None
    if not all(isinstance(place, dict) and {"name", "first", "last"} <= place.keys() for place in listed):
        return None
    if curve["axis"] != "window":
        return [str(place["name"]) for place in listed]
    return [f"{place['name']} {place['first']}–{place['last']}".replace("_", " ") for place in listed]


def _clouds(result: Mapping[str, Any], spec: Metric) -> list[Cloud]:
    """The heads of two tables against each other, by thirds of the depth as in head_masking."""
    if spec.scatter is None or not all(_is_table(result.get(name)) for name in spec.scatter):
        return []
    across, upwards = (result[name] for name in spec.scatter)
    axis, unit = (spec.table_units.get(name, spec.unit) for name in spec.scatter)
    groups: dict[str, list[tuple[float, float, str]]] = {}
    for stage in STAGES:
        points = groups[f"{stage} layers"] = []
        for layer in layers_of_stage(stage, len(across)):
            for head, (x, y) in enumerate(zip(across[layer], upwards[layer], strict=True)):
                if finite(x) and finite(y):
                    points.append(
                        (x, y, f"layer {layer}, head {head}: {axis} {shown(x, axis)}, {unit} {shown(y, unit)}")
                    )
    return [Cloud("heads, a dot each", axis, unit, groups)] if any(groups.values()) else []


def _heats(result: Mapping[str, Any], drawn_already: Sequence[str] = ()) -> list[Heat]:
    heats = []
    for name, value in result.items():
        if name in drawn_already:
            continue
        tables = value.items() if isinstance(value, dict) else [("", value)]
        for part, table in tables:
            if _is_table(table):
                heats.append(Heat(spoken(f"{name}/{part}" if part else name), table))
    return heats


def _is_table(value: Any) -> bool:
    """Whether this is a matrix of numbers."""
    if not isinstance(value, list) or not value or not all(isinstance(row, list) and row for row in value):
        return False
    if len({len(row) for row in value}) > 1:
        return False
    return all(
        cell is None or (isinstance(cell, (int, float)) and not isinstance(cell, bool)) for r in value for cell in r
    )


def _numbers(scalars: Mapping[str, Any], spec: Metric) -> Numbers:
    """One row a scalar; where all are called "function/what", a row a function and a column each what."""
    split = {name: name.rsplit("/", 1) for name in scalars}
    headings = list(dict.fromkeys(parts[-1] for parts in split.values()))
    if scalars and all("/" in name for name in scalars) and len(headings) <= MOST_COLUMNS:
        rows = []
        for row in dict.fromkeys(parts[0] for parts in split.values()):
            cells = [_cell(scalars.get(f"{row}/{what}"), spec.unit_of(what)) for what in headings]
            counts = {scalars[f"{row}/{what}"]["n"] for what in headings if f"{row}/{what}" in scalars}
            rows.append((spoken(row), cells, ", ".join(map(str, sorted(counts)))))
        return Numbers([spoken(what) for what in headings], rows)
    flat = [(spoken(name), [_cell(value, spec.unit_of(name))], str(value["n"])) for name, value in scalars.items()]
    return Numbers(["value"], flat)


def _cell(scalar: Mapping[str, Any] | None, unit: str) -> tuple[str, str]:
    if scalar is None or scalar["value"] is None:
        return "–", ""
    interval = "" if scalar["low"] is None else f"{shown(scalar['low'], unit)} to {shown(scalar['high'], unit)}"
    return shown(scalar["value"], unit), interval


def _facts(extra: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a metric adds beside tables: lists of layers or ids, single values."""
    facts = []
    for name, value in extra.items():
        parts = {f"{name}/{key}": own for key, own in value.items()} if isinstance(value, dict) else {name: value}
        for part, own in parts.items():
            if _is_table(own) or isinstance(own, dict) or (isinstance(own, list) and own and isinstance(own[0], dict)):
                continue
            text = _listed(own) if isinstance(own, list) else str(own)
            facts.append((spoken(part), text or "none"))
    return facts


def _listed(values: list[Any]) -> str:
    """A list in words, cut where it is long."""
    text = ", ".join(map(str, values[:LISTED]))
    return text + (f" and {len(values) - LISTED} more" if len(values) > LISTED else "")


def _ranking(extra: Mapping[str, Any]) -> tuple[list[str], list[list[str]]] | None:
    """The first rows of a metric's list of the highest."""
    rows = extra.get("top")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        return None
    return list(rows[0]), [
        [shown(cell, "") if isinstance(cell, float) else str(cell) for cell in row.values()]
        for row in rows[:SHOWN_ROWS]
    ]
