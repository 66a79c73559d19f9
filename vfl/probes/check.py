"""Checking a suite before a model is asked: every bad line at once, and what makes a suite tell less than it could."""

from collections import Counter
from pathlib import Path

from vfl.errors import InputError
from vfl.probes.pair import PROBES_FILE, Pair, read_lines

FEWEST = 20
"""Pairs of a function below which intervals are too wide to tell layers apart (docs/how-to/pairs.md)."""
LISTED = 20
"""Bad lines that a message lists."""


def check_suite(folder: str | Path) -> tuple[list[Pair], list[str]]:
    """The pairs of a suite, and notes for a person on what could be better.

    Raises:
        InputError: there is no suite, or lines of it can't be used: names each line, its field and what was expected.
    """
    path = Path(folder) / PROBES_FILE
    pairs: dict[int, Pair] = {}
    bad: list[str] = []
    for number, pair in read_lines(folder):
        if isinstance(pair, InputError):
            bad.append(f"line {number}: {pair}")
        else:
            pairs[number] = pair
    if bad:
        lines = "1 line" if len(bad) == 1 else f"{len(bad)} lines"
        more = [f"and {len(bad) - LISTED} more"] if len(bad) > LISTED else []
        listed = "\n".join(f"  {text}" for text in [*bad[:LISTED], *more])
        raise InputError(f"{path}: {lines} of {len(bad) + len(pairs)} can't be used:\n{listed}")
    if not pairs:
        raise InputError(f"{path} holds no pairs; expected one JSON object a line")
    return list(pairs.values()), notes_on(pairs)


def notes_on(pairs: dict[int, Pair]) -> list[str]:
    """What could be better about pairs that can be used, by the number of their line."""
    notes = []
    counts = Counter(pair.function for pair in pairs.values())
    bare = Counter(pair.function for pair in pairs.values() if pair.control_image is None)
    for function, count in counts.items():
        if count < FEWEST:
            notes.append(f"{function} has {count} pairs; {FEWEST} are the least that tell layers apart, 100 are usual.")
        if bare[function]:
            notes.append(
                f"{function}: {bare[function]} of {count} pairs have no control_image. Without it, layers are tested "
                "against a fixed floor, and disruption counts as function."
            )
    asked: dict[tuple[str, str, str], int] = {}
    for number, pair in pairs.items():
        if pair.path("image").read_bytes() == pair.path("source_image").read_bytes():
            notes.append(f"line {number}: image and source_image are the same picture, so a swap can't show.")
        first = asked.setdefault((pair.image, pair.source_image, pair.question), number)
        if first != number:
            notes.append(f"line {number}: asks what line {first} asks, of the same two images.")
    return notes
