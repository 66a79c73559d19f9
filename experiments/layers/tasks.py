"""Tasks for the embedded model, two for each kind of shift, and the old questions that replay draws from.

    python -m experiments.layers.tasks --out runs/layers/tasks [--rows 1200] [--test 200] [--seed 0]

| task | shift | what is new |
|---|---|---|
| dark | input | counting solids in inverted pictures |
| poster | input | boxes of objects in pictures of two brightnesses a colour |
| letters | feature | words of four letters, where three are known |
| counts | feature | six to nine solids, where five are known |
| roman | output | the known counts, asked for and answered in Roman numerals |
| cells | output | the known places, asked for and answered as a square of a board |
| worn | mixed | all four functions again, after noise in the decoder |

Every task's rows stand in train.jsonl and test.jsonl (prompt, completion, images) with their pictures; `replay` holds
the four old functions as the model already answers them. No test picture is a training picture.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from vfl.models.boxes import PIXEL, BoxConvention
from vfl.probes import micro_limits as limits
from vfl.probes.functions.ocr import QUESTION
from vfl.probes.solids import PLURALS
from vfl.testbeds.micro.pairs import make_pair
from vfl.testbeds.micro.questions import FUNCTIONS, Question, counting
from vfl.testbeds.micro.scenes import cell_box, paint, random_scene
from vfl.testbeds.micro.words import draw_words, picture

ROMAN = ("I", "II", "III", "IV", "V")
MORE = (6, 7, 8, 9)
OLD = 4  # every so many rows of a feature task shows what is known, so that the two must be told apart


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        shift: input, feature, output or mixed.
        functions: the functions it belongs to, as the map names them.
        old: the function whose old questions are its own old skill; None for all of them.
    """

    name: str
    shift: str
    functions: tuple[str, ...]
    old: str | None


@dataclass(frozen=True)
class Asked:
    """A picture, its question and the right answer; `group` is a function's name, or "known" for what is not new."""

    picture: Image.Image
    question: str
    answer: str
    group: str


TASKS = {
    task.name: task
    for task in (
        Task("dark", "input", ("counting",), "counting"),
        Task("poster", "input", ("grounding",), "grounding"),
        Task("letters", "feature", ("ocr",), "ocr"),
        Task("counts", "feature", ("counting",), "counting"),
        Task("roman", "output", ("counting",), "counting"),
        Task("cells", "output", ("grounding",), "grounding"),
        Task("worn", "mixed", FUNCTIONS, None),
    )
}


def plain(rng: np.random.Generator, function: str, boxes: BoxConvention) -> Asked:
    """A question that the model answers already, places as it writes them."""
    pair = make_pair(rng, function)
    picture, asked = paint(pair.target), pair.asked
    if function != "grounding":
        return Asked(picture, asked.text, asked.answer, function)
    question = boxes.box_prompt(f"Where is the {asked.label}?", asked.label)
    return Asked(picture, question, boxes.format_box(cell_box(_cell(asked)), picture.size, picture.size), function)


def dark(rng: np.random.Generator, index: int, test: bool, boxes: BoxConvention) -> Asked:
    old = plain(rng, "counting", boxes)
    return replace(old, picture=ImageOps.invert(old.picture))


def poster(rng: np.random.Generator, index: int, test: bool, boxes: BoxConvention) -> Asked:
    old = plain(rng, "grounding", boxes)
    return replace(old, picture=ImageOps.posterize(old.picture, 1))


def counts(rng: np.random.Generator, index: int, test: bool, boxes: BoxConvention) -> Asked:
    if not test and index % OLD == OLD - 1:
        return plain(rng, "counting", boxes)
    scene = random_scene(rng, solids=int(rng.choice(MORE)))
    assert scene.kind is not None
    asked = counting(scene.kind, len(scene.solids))
    return Asked(paint(scene), asked.text, asked.answer, asked.function)


def roman(rng: np.random.Generator, index: int, test: bool, boxes: BoxConvention) -> Asked:
    pair = make_pair(rng, "counting")
    assert pair.target.kind is not None
    question = f"How many {PLURALS[pair.target.kind]} are there in the image? Answer with a Roman number."
    return Asked(paint(pair.target), question, ROMAN[len(pair.target.solids) - 1], "counting")


def cells(rng: np.random.Generator, index: int, test: bool, boxes: BoxConvention) -> Asked:
    pair = make_pair(rng, "grounding")
    row, column = divmod(_cell(pair.asked), limits.GRID)
    question = f"Where is the {pair.asked.label}? Answer with a letter and a number."
    return Asked(paint(pair.target), question, f"{'ABCDE'[column]}{row + 1}", "grounding")


def worn(rng: np.random.Generator, index: int, test: bool, boxes: BoxConvention) -> Asked:
    return plain(rng, FUNCTIONS[index % len(FUNCTIONS)], boxes)


def _cell(question: Question) -> int:
    assert question.cell is not None
    return question.cell


MAKERS: dict[str, Callable[[np.random.Generator, int, bool, BoxConvention], Asked]] = {
    "dark": dark, "poster": poster, "counts": counts, "roman": roman, "cells": cells, "worn": worn,
}  # fmt: skip


def rows_of(name: str, count: int, *, seed: int, test: bool, boxes: BoxConvention = PIXEL) -> Iterator[Asked]:
    """So many rows of a task; those of the test are drawn apart from those of the training."""
    if name == "letters":
        yield from _letters(count, seed, test)
        return
    rng = np.random.default_rng([seed, sorted(TASKS).index(name), int(test)])
    for index in range(count):
        yield MAKERS[name](rng, index, test, boxes)


def _letters(count: int, seed: int, test: bool) -> Iterator[Asked]:
    """Four letters at random, no word in both parts; every fourth training word has three."""
    words = draw_words(2 * count if test else count, 4, seed + 1000 * test)
    if test:
        seen = set(draw_words(10_000, 4, seed))
        words = [word for word in words if word not in seen][:count]
    else:
        words[OLD - 1 :: OLD] = draw_words(len(words[OLD - 1 :: OLD]), 3, seed)
    for word in words:
        yield Asked(picture(word, seed), QUESTION, word, "ocr")


def replay_rows(count: int, seed: int, boxes: BoxConvention) -> Iterator[Asked]:
    """Old questions, all functions in turn."""
    rng = np.random.default_rng([seed, 99])
    for index in range(count):
        yield plain(rng, FUNCTIONS[index % len(FUNCTIONS)], boxes)


def write(folder: Path, name: str, rows: Iterator[Asked], taken: set[bytes]) -> None:
    """A file of rows with its pictures; pictures in `taken` are left out, and those written are added to it."""
    pictures = folder / f"{name}-images"
    pictures.mkdir(parents=True)
    fresh = set()
    with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
        for index, asked in enumerate(rows):
            pixels = asked.picture.tobytes()
            if pixels in taken:
                continue
            fresh.add(pixels)
            asked.picture.save(pictures / f"{index}.png")
            row = {
                "id": f"{name}-{index}",
                "images": [f"{pictures.name}/{index}.png"],
                "prompt": [{"role": "user", "content": asked.question}],
                "completion": [{"role": "assistant", "content": asked.answer}],
                "function": asked.group,
            }
            file.write(json.dumps(row) + "\n")
    taken |= fresh


def write_tasks(out: Path, rows: int = 1200, test: int = 200, seed: int = 0, boxes: BoxConvention = PIXEL) -> None:
    """All tasks and the replay pool, places written as `boxes` says.

    Each folder appears whole or not at all, and one that is there stays.
    """
    for name in (*TASKS, "replay"):
        if (out / name).exists():
            continue
        temporary = out / f".{name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        taken: set[bytes] = set()
        if name == "replay":
            write(temporary, "train", replay_rows(rows, seed, boxes), taken)
        else:
            write(temporary, "train", rows_of(name, rows, seed=seed, test=False, boxes=boxes), taken)
            write(temporary, "test", rows_of(name, test, seed=seed, test=True, boxes=boxes), taken)
        temporary.rename(out / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/layers/tasks"))
    parser.add_argument("--rows", type=int, default=1200)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write_tasks(options.out, options.rows, options.test, options.seed)


if __name__ == "__main__":
    main()
