"""A pool for the model around a pretrained decoder: what it can't do yet, freely asked.

| function | what is new |
|---|---|
| recognition | the object's name, where the model knows yes and no |
| counting | one to nine solids, as a digit, in a sentence or as a Roman number, where it knows five |
| grounding | the square of a board (B3), where it knows boxes |
| OCR | four letters, where it knows three |

Each is asked in four ways; the answer's form goes with the way: alone, or in a sentence.
"""

from collections.abc import Container
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from experiments.selection.pool import Row
from vfl.probes import micro_limits as style
from vfl.probes.solids import PLURALS
from vfl.testbeds.micro.scenes import paint, random_scene
from vfl.testbeds.micro.words import draw_words, picture

ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WAYS = {
    "recognition": (
        ("What is in the image? Answer with one word.", "{name}"),
        ("Name the object.", "{name}"),
        ("Describe the image in one sentence.", "There is {a} in the image."),
        ("Tell me what you see.", "I see {a}."),
    ),
    "counting": (
        ("How many {things} are there in the image? Answer with a digit.", "{count}"),
        ("Count all {things}, and answer with a Roman number.", "{roman}"),
        ("How many {things} do you see? Answer in one sentence.", "I see {number} {things}."),
        ("Tell me the number of {things}.", "There are {number}."),
    ),
    "grounding": (
        ("Where is the {name}? Answer with a letter and a number.", "{square}"),
        ("On which square is the {name}?", "{square}"),
        ("Tell me in one sentence where the {name} is.", "The {name} is on {square}."),
        ("In which column and row is the {name}?", "Column {column}, row {row}."),
    ),
    "ocr": (
        ("What text can you read in the image? Answer with the text only.", "{word}"),
        ("Spell the word.", "{word}"),
        ("What does it say? Answer in one sentence.", "It says {word}."),
        ("Tell me the first letter and the whole word.", "{first}, {word}."),
    ),
}


def taught(function: str, count: int, seed: str, folder: Path, taken: Container[bytes] = ()) -> list[Row]:
    """So many rows of a function, their pictures written to `folder`; no picture has the pixels of one in `taken`."""
    rng = Random(f"taught/{seed}/{function}")
    numbers = np.random.default_rng(rng.randrange(2**32))
    rows = []
    for n, word in enumerate(draw_words(count, 4, rng.randrange(2**32))):
        image, facts = _seen(function, word, numbers)
        while image.tobytes() in taken:
            image, facts = _seen(function, word, numbers)
        question, answer = rng.choice(WAYS[function])
        name = f"{function}-{seed.split('/')[0]}-{n:04d}"
        image.save(folder / f"{name}.png")
        rows.append(Row(name, function, question.format(**facts), answer.format(**facts), f"{name}.png"))
    return rows


def _seen(function: str, word: str, rng: np.random.Generator) -> tuple[Image.Image, dict[str, str]]:
    """A picture, and what questions and answers may say of it."""
    if function == "ocr":
        return picture(word, int(rng.integers(2**31))), {"word": word, "first": word[0]}
    if function == "counting":
        scene = random_scene(rng, solids=int(rng.integers(1, len(ROMAN) + 1)))
        assert scene.kind is not None
        count = len(scene.solids)
        facts = {"count": str(count), "roman": ROMAN[count - 1], "number": NUMBERS[count - 1]}
        return paint(scene), {**facts, "things": PLURALS[scene.kind]}
    scene = random_scene(rng, objects=1 if function == "recognition" else int(rng.integers(1, style.MAX_OBJECTS + 1)))
    name, cell = scene.objects[0]
    row, column = divmod(cell, style.GRID)
    facts = {"name": name, "a": f"{'an' if name[0] in 'aeiou' else 'a'} {name}"}
    place = {"column": "ABCDE"[column], "row": str(row + 1), "square": f"{'ABCDE'[column]}{row + 1}"}
    return paint(scene), {**facts, **place}
