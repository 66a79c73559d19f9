"""Lists of layers: as runs of neighbours, as a person writes them, and back."""

import re
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from vfl.errors import InputError

_SPAN = re.compile(r"(\d+)(?:\s*[-–]\s*(\d+))?")


def runs(layers: Iterable[int]) -> list[list[int]]:
    """Ascending layers as runs of neighbours: [3, 4, 5, 9] -> [[3, 4, 5], [9]]."""
    numbered = enumerate(layers)
    return [[layer for _, layer in run] for _, run in groupby(numbered, lambda item: item[1] - item[0])]


def layer_list(layers: Iterable[int]) -> str:
    """[3, 4, 5, 9] -> "3–5, 9"; nothing -> "none"."""
    return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs(layers)) or "none"


def parse_layers(written: Any, *, words: str = "") -> list[int]:
    """Layers as they are written, in that order and with the repeats: "10-12,14", ["10-12", 14] or [10, 11, 12, 14].

    Which layers a model has, and that each is named once, is for whoever knows the model.

    Args:
        written: as a person wrote it.
        words: what may be written instead, for the message: ", or full".

    Raises:
        InputError: for anything else, a span that runs backwards, or no layer at all.
    """
    layers: list[int] = []
    for part in written if isinstance(written, list | tuple) else [written]:
        if isinstance(part, int) and not isinstance(part, bool):
            layers.append(part)
        elif isinstance(part, str):
            for span in part.split(","):
                layers += _span(span.strip(), _no_list(written, words))
        else:
            raise _no_list(written, words)
    if not layers:
        raise InputError(f"{written!r} names no layer; write at least one, such as 10-12,20")
    return layers


def _span(text: str, wrong: InputError) -> range:
    """The layers of "10-12", or of "14"."""
    match = _SPAN.fullmatch(text)
    if match is None:
        raise wrong
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise InputError(f"the span {text!r} runs backwards; write {last}-{first}")
    return range(first, last + 1)


def _no_list(written: Any, words: str) -> InputError:
    return InputError(f"{written!r} is no list of layers; write it like 10-12,20{words}")
