"""Module names as an anchored pattern, and as a line of Python: short to read, exact all the same."""

import re
from collections.abc import Sequence
from itertools import groupby
from textwrap import indent

_NUMBERED = re.compile(r"(?P<stem>.*?\.layers)\.(?P<layer>\d+)\.(?P<rest>.+)")


def pattern_of(names: Sequence[str]) -> str:
    """A pattern that matches the whole of each of `names` and of no other name."""
    groups, single = grouped(names)
    parts = [
        rf"{re.escape(stem)}\.(?:{'|'.join(map(str, layers))})\.(?:{'|'.join(map(re.escape, rests))})"
        for stem, layers, rests in groups
    ]
    return "|".join([*parts, *map(re.escape, single)])


def python_of(names: Sequence[str]) -> str:
    """An expression for the list of `names`."""
    groups, single = grouped(names)
    loops = [
        f'f"{stem}.{{layer}}.{{name}}"\nfor layer in {layers}\nfor name in {rests}' for stem, layers, rests in groups
    ]
    if len(loops) == 1 and not single:
        return f"[\n{indent(loops[0], '    ')}\n]"
    parts = [*(f"*[\n{indent(loop, '    ')}\n]," for loop in loops), *(f"{name!r}," for name in single)]
    return "[\n" + indent("\n".join(parts), "    ") + "\n]"


def grouped(names: Sequence[str]) -> tuple[list[tuple[str, list[int], list[str]]], list[str]]:
    """Names as (stem, layers, names inside these layers), and those that stand in no numbered layer."""
    inside: dict[tuple[str, int], list[str]] = {}
    single = []
    for name in names:
        layer_name = _NUMBERED.fullmatch(name)
        if layer_name is None:
            single.append(name)
        else:
            inside.setdefault((layer_name["stem"], int(layer_name["layer"])), []).append(layer_name["rest"])
    alike = sorted(inside, key=lambda place: (place[0], inside[place], place[1]))
    groups = [
        (stem, [layer for _, layer in places], rests)
        for (stem, rests), run in groupby(alike, key=lambda place: (place[0], inside[place]))
        for places in [list(run)]
    ]
    return sorted(groups), single
