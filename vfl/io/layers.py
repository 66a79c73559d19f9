"""Lists of layers: as runs of neighbours, as a person writes them, and back."""

from collections.abc import Iterable
from itertools import groupby

from vfl.errors import InputError


def runs(layers: Iterable[int]) -> list[list[int]]:
    """Ascending layers as runs of neighbours: [3, 4, 5, 9] -> [[3, 4, 5], [9]]."""
    numbered = enumerate(layers)
    return [[layer for _, layer in run] for _, run in groupby(numbered, lambda item: item[1] - item[0])]


def layer_list(layers: Iterable[int]) -> str:
    """[3, 4, 5, 9] -> "3–5, 9"; nothing -> "none"."""
    return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs(layers)) or "none"


def parse_layers(text: str) -> list[int]:
    """ "10-12,14" -> [10, 11, 12, 14].

    Raises:
        InputError: when it is not of that form.
    """
    chosen: set[int] = set()
    try:
        for span in text.replace("–", "-").split(","):
            first, _, last = span.partition("-")
            chosen |= set(range(int(first), int(last or first) + 1))
    except ValueError as error:
        raise InputError(f"{text!r} is no list of layers; write it like 10-12,14.") from error
    return sorted(chosen)
