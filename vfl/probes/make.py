"""Generated probe suites: any functions, any number of pairs, the same bytes for the same seed.

    make("probes", ["counting", "ocr"], pairs=100, seed=0, style=Style())

Each pair has its own random generator, seeded by the suite's seed, the function and the pair's number, so the first
pairs of a larger suite are those of a smaller one, and leaving a function out changes no other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from vfl.errors import InputError
from vfl.probes.functions import FUNCTIONS, PAPER_FUNCTIONS
from vfl.probes.pair import DrawnPair, Pair, write_suite
from vfl.probes.style import Style


def make(
    folder: str | Path,
    functions: Sequence[str] = PAPER_FUNCTIONS,
    pairs: int = 100,
    seed: int = 0,
    style: Style | None = None,
) -> list[Pair]:
    """Write a suite of `pairs` pairs for each function into `folder`.

    Raises:
        InputError: an unknown function, one that the style does not draw, no pairs, or a folder with a suite in it.
    """
    return write_suite(folder, drawn_pairs(functions, pairs, seed, style))


def drawn_pairs(
    functions: Sequence[str] = PAPER_FUNCTIONS, pairs: int = 100, seed: int = 0, style: Style | None = None
) -> Iterator[DrawnPair]:
    """The pairs of `make`, one after the other, without writing them. Raises as `make`, before the first pair."""
    style = style or Style()
    check_functions(functions, style.functions or tuple(FUNCTIONS), f"style {style.name!r}")
    if pairs < 1:
        raise InputError(f"pairs is {pairs}; expected at least 1 for each function")
    return (draw_one(function, index, seed, style) for function in functions for index in range(pairs))


def draw_one(function: str, index: int, seed: int, style: Style) -> DrawnPair:
    """Pair number `index` of a function."""
    drawn = FUNCTIONS[function](Random(f"{seed}/{function}/{index}"), style, index)
    return replace(drawn, id=f"{function}-{index:04d}")


def check_functions(functions: Sequence[str], known: Sequence[str], source: str) -> None:
    """Refuse functions that `source` does not draw, repeated ones, and none at all."""
    unknown = [name for name in functions if name not in known]
    if unknown or not functions or len(set(functions)) < len(functions):
        problem = f"does not draw {', '.join(map(repr, unknown))}" if unknown else "needs each function once"
        raise InputError(f"{source} {problem}; got {', '.join(functions) or 'none'}, choose from: {', '.join(known)}")
