"""Generated probe suites: any functions, any number of pairs, the same bytes for the same seed.

    make("probes", ["counting", "ocr"], pairs=100, seed=0, style=Style())

Each pair has its own random generator, seeded by the suite's seed, the function and the pair's number, so the first
pairs of a larger suite are those of a smaller one, and leaving a function out changes no other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path
from random import Random

from vfl.errors import InputError
from vfl.probes.functions import FUNCTIONS, GROUPS, PAPER_FUNCTIONS
from vfl.probes.pair import DrawnPair, Pair, write_suite
from vfl.probes.style import Style


def make(
    folder: str | Path,
    functions: Sequence[str] = PAPER_FUNCTIONS,
    pairs: int = 100,
    seed: int = 0,
    style: Style | None = None,
    group: int | None = None,
) -> list[Pair]:
    """Write a suite of `pairs` pairs for each function into `folder`.

    Args:
        folder: of the suite.
        functions: to draw.
        pairs: of each function.
        seed: of what is drawn.
        style: what it looks like.
        group: draw groups of so many images of one scene, and all ordered pairs of each; None for pairs of their own.

    Raises:
        InputError: an unknown function, one that the style does not draw, no pairs, a group of fewer or more images
            than a function has answers, or a folder with a suite in it.
    """
    return write_suite(folder, drawn_pairs(functions, pairs, seed, style, group))


def drawn_pairs(
    functions: Sequence[str] = PAPER_FUNCTIONS,
    pairs: int = 100,
    seed: int = 0,
    style: Style | None = None,
    group: int | None = None,
) -> Iterator[DrawnPair]:
    """The pairs of `make`, one after the other, without writing them. Raises as `make`, before the first pair."""
    style = style or Style()
    check_functions(functions, style.functions or tuple(FUNCTIONS), f"style {style.name!r}")
    if pairs < 1:
        raise InputError(f"pairs is {pairs}; expected at least 1 for each function")
    if group is None:
        return (draw_one(function, index, seed, style) for function in functions for index in range(pairs))
    check_functions(functions, tuple(GROUPS), "a group of images")
    for function in functions:
        draw_group(function, 0, seed, style, group)  # whether it can be drawn
    return chain.from_iterable(_grouped(function, pairs, seed, style, group) for function in functions)


def _grouped(function: str, pairs: int, seed: int, style: Style, group: int) -> Iterator[DrawnPair]:
    """The pairs of as many groups as are needed, the last cut off."""
    drawn = chain.from_iterable(draw_group(function, number, seed, style, group) for number in count())
    for index, pair in enumerate(islice(drawn, pairs)):
        yield replace(pair, id=f"{function}-{index:04d}")


def draw_group(function: str, number: int, seed: int, style: Style, size: int) -> list[DrawnPair]:
    """The pairs of group number `number` of a function."""
    pairs = GROUPS[function](Random(f"{seed}/{function}/{size}/{number}"), style, size)
    return [replace(pair, group=f"{function}-{number:04d}") for pair in pairs]


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
