"""The pools of the experiment, each with held-out questions of its kind; the same on every machine for a seed.

| pool | rows |
|---|---|
| even | 350 of each function, 200 blind, 100 repeats, 100 wrong answers (pool.py) |
| skewed | ten times as many of one function as of another; 30 % blind, repeats and wrong answers |
| free | clean: four phrasings of each question, answered by sentences whose form follows the phrasing |
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
from num2words import num2words
from pool import FUNCTIONS, Row, blind_row, copied, drawn, spoilt, write_pool

from vfl.probes import micro_limits as style
from vfl.probes.solids import PLURALS
from vfl.testbeds.micro.scenes import Scene, paint, plain_scene

EVEN = {"each": 350, "blind": 200, "repeats": 100, "wrong": 100}
SKEWED = {"recognition": 400, "ocr": 250, "grounding": 110, "counting": 40}
SKEWED_JUNK = {"blind": 114, "repeats": 115, "wrong": 114}
FREE = 300  # rows of each function
HELD_OUT = 60  # questions of each function
Phrasing = tuple[str, Callable[[str], str]]

ROWS = ("first", "second", "third", "fourth", "fifth")


def write_even(out: Path, seed: int) -> None:
    """The pool whose functions are as frequent as each other."""
    write_pool(out, **EVEN, seed=seed)
    _add_test(out, [row for name in FUNCTIONS for row in drawn(name, HELD_OUT, seed + 7, out / "images", "test-")])


def write_skewed(out: Path, seed: int) -> None:
    """The skewed and dirty pool; a row's source is its function's, but for junk, which has one of its own."""
    rng = Random(f"skewed/{seed}")
    folder = _fresh(out)
    rows: list[Row] = []
    wrong: list[Row] = []
    whole = sum(SKEWED.values())
    for name, count in SKEWED.items():
        more = round(SKEWED_JUNK["wrong"] * count / whole)
        made = [replace(row, source=name) for row in drawn(name, count + more, seed, folder / "images")]
        rows += made[:count]
        wrong += [spoilt(row, made, rng) for row in made[count:]]
    pictures = [row.image for row in rows]
    said = [replace(blind_row(n, rng, pictures), source="captions") for n in range(SKEWED_JUNK["blind"])]
    repeats = [copied(n, row) for n, row in enumerate(rng.sample(rows, SKEWED_JUNK["repeats"]))]
    _write(folder / "pool.jsonl", rng, [*rows, *wrong, *said, *repeats])
    _add_test(
        folder, [row for name in FUNCTIONS for row in drawn(name, HELD_OUT, seed + 7, folder / "images", "test-")]
    )
    _finish(folder, out)


def write_free(out: Path, seed: int) -> None:
    """The pool of sentences."""
    folder = _fresh(out)
    rows = [row for name in FUNCTIONS for row in _told(name, FREE, f"free/{seed}", folder / "images")]
    _write(folder / "pool.jsonl", Random(f"free/{seed}"), rows)
    test = [row for name in FUNCTIONS for row in _told(name, HELD_OUT, f"test/{seed}", folder / "images")]
    _add_test(folder, test)
    _finish(folder, out)


def _told(function: str, count: int, seed: str, folder: Path) -> list[Row]:
    rng = Random(f"{seed}/{function}")
    numbers = np.random.default_rng(rng.randrange(2**32))
    rows = []
    for n in range(count):
        scene = plain_scene(numbers, function)
        question, answer = _asked(function, scene, rng)
        name = f"{function}-{seed.split('/')[0]}-{n:04d}"
        paint(scene).save(folder / f"{name}.png")
        rows.append(Row(name, function, question, answer, f"{name}.png"))
    return rows


def _asked(function: str, scene: Scene, rng: Random) -> tuple[str, str]:
    """A question about a scene and its answer."""
    if function == "recognition":
        there = scene.objects[0][0] if scene.objects else None
        name = there if there and rng.random() < 0.7 else rng.choice(style.OBJECTS)
        some = f"an {name}" if name[0] in "aeiou" else f"a {name}"
        seen = name == there
        return rng.choice(
            (
                (f"Is there {some}?", f"Yes, there is {some}." if seen else f"No, there is no {name}."),
                (f"Do you see {some} in the image?", f"I see {some}." if seen else "I do not."),
                (f"Answer yes or no: is {some} in the image?", "yes" if seen else "no"),
                (f"What of {some}?", f"The {name} is there." if seen else f"No {name} is there."),
            )
        )
    if function == "counting":
        assert scene.kind is not None
        things, count = PLURALS[scene.kind], len(scene.solids)
        return rng.choice(
            (
                (f"How many {things} are there?", f"There are {count}."),
                (f"Count the {things} in the image.", f"{count} {things}"),
                (f"Answer with a word: how many {things}?", num2words(count)),
                (f"What number of {things} is in the image?", f"The number is {count}."),
            )
        )
    if function == "grounding":
        name, cell = rng.choice(scene.objects)
        row, column = divmod(cell, style.GRID)
        return rng.choice(
            (
                (f"Where is the {name}?", f"row {row}, column {column}"),
                (f"In what row is the {name}?", f"The {name} is in the {ROWS[row]} row."),
                (f"Answer with a number: the column of the {name}?", str(column)),
                (f"Is the {name} in the left or the right?", _side(name, column)),
            )
        )
    assert scene.word is not None
    word = scene.word.text
    return rng.choice(
        (
            ("What text is in the image?", f"The text is {word}."),
            ("Read it.", word),
            ("What can you read?", f"I can read {word}."),
            ("With what letter does the text start?", f"With {word[0]}."),
        )
    )


def _side(name: str, column: int) -> str:
    middle = style.GRID // 2
    if column == middle:
        return f"The {name} is in the middle."
    return f"The {name} is in the {'left' if column < middle else 'right'}."


def _fresh(out: Path) -> Path:
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "images").mkdir(parents=True)
    return temporary


def _finish(temporary: Path, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)


def _write(path: Path, rng: Random, rows: list[Row]) -> None:
    rng.shuffle(rows)
    path.write_text("".join(row.line() + "\n" for row in rows), encoding="utf-8")


def _add_test(folder: Path, rows: list[Row]) -> None:
    path = folder / "test.jsonl"
    path.write_text("".join(json.dumps(json.loads(row.line())) + "\n" for row in rows), encoding="utf-8")
