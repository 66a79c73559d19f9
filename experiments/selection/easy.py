"""A pool out of a public data set, as it is: easy-VQA (V. Zhou, MIT), which the Python package `easy-vqa` ships.

One coloured shape a picture; three quarters of the questions ask yes or no, the others for the shape or its colour.
Nobody of this project drew it up: nothing is added, and held-out questions are drawn from its own test part, kinds as
frequent there as they are.
"""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from random import Random

from experiments.selection.pool import Row
from vfl.errors import InputError

ROWS, HELD_OUT = 1000, 300
SHAPES = ("circle", "rectangle", "triangle")


def write_easy(out: Path, seed: int) -> None:
    """Write so many questions of the training part, and of the test part; the folder appears whole or not at all."""
    spec = find_spec("easy_vqa")
    if spec is None or spec.origin is None:
        raise InputError("The pool of easy-VQA needs its package: pip install --no-deps easy-vqa==1.0")
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "images").mkdir(parents=True)
    for name, part, count in (("pool", "train", ROWS), ("test", "test", HELD_OUT)):
        source = Path(spec.origin).parent / "data" / part
        asked = json.loads((source / "questions.json").read_text(encoding="utf-8"))
        lines = []
        for n, (question, answer, image) in enumerate(Random(f"easy/{part}/{seed}").sample(asked, count)):
            shutil.copyfile(source / "images" / f"{image}.png", temporary / "images" / f"{part}-{image}.png")
            lines.append(Row(f"{part}-{n:04d}", kind_of(answer), question, answer, f"{part}-{image}.png").line())
        (temporary / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)


def kind_of(answer: str) -> str:
    """What a question asks for."""
    if answer in ("yes", "no"):
        return "yes or no"
    return "shape" if answer in SHAPES else "colour"
