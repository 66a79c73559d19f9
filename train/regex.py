"""Module names as an anchored pattern, and as a line of Python: short to read, exact all the same."""

import re
from collections.abc import Sequence
from itertools import groupby

_NUMBERED = re.compile(r"(?P<stem>.*?\.layers)\.(?P<layer>\d+)\.(?P<rest>.+)")


def pattern_of(names: Sequence[str]) -> str:
    """A pattern whose full match is each of `names` and nothing else, such as `model\\.layers\\.(?:3|4)\\.(?:mlp\\.up)`."""
    groups, single = grouped(names)
    parts = [
        rf"{re.escape(stem)}\.(?:{'|'.join(map(str, layers))})\.(?:{'|'.join(map(re.escape, rests))})"
        for stem, layers, rests in groups
    ]
    return "|".join([*parts, *map(re.escape, single)])


def python_of(names: Sequence[str]) -> str:
    """An expression for the list of `names`."""
    groups, single = grouped(names)
    parts = [
        f'*[f"{stem}.{{layer}}.{{name}}" for layer in {layers} for name in {rests}]' for stem, layers, rests in groups
    ]
    return "[" + ", ".join([*parts, *map(repr, single)]) + "]"


def grouped(names: Sequence[str]) -> tuple[list[tuple[str, list[int], list[str]]], list[str]]:
    """Names as (stem, layers, names inside these layers), and those that stand in no numbered layer."""
    inside: dict[tuple[str, int], list[str]] = {}
    single = []
    for name in names:
        found = _NUMBERED.fullmatch(name)
        if found is None:
            single.append(name)
        else:
            inside.setdefault((found["stem"], int(found["layer"])), []).append(found["rest"])
    alike = sorted(inside, key=lambda place: (place[0], inside[place], place[1]))
    groups = [
        (stem, [layer for _, layer in places], rests)
        for (stem, rests), run in groupby(alike, key=lambda place: (place[0], inside[place]))
        for places in [list(run)]
    ]
    return sorted(groups), single
