"""The pools of the experiment, each with held-out questions of its kind; the same on every machine for a seed.

| pool | rows |
|---|---|
| even | 350 of each function, 200 blind, 100 repeats, 100 wrong answers (pool.py) |
| skewed | ten times as many of one function as of another; 30 % blind, repeats and wrong answers |
| turned, reading | the same with other functions in front: most rows count, or read |
| seeing, even seeing | skewed and even without reading, for a model that does not read |
| phrased | clean, as many rows of each function: four phrasings of each question, of which the base knows one |
| taught | four functions in forms that the model around a pretrained decoder does not know (taught.py), and junk |
| mixed | three fifths of what it knows, two of what it does not, and junk |
| phrased and dirty, turned, anew | likewise, each function two thirds as frequent as the one before; junk |
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from experiments.layers.tasks import plain
from experiments.selection.pool import FUNCTIONS, Row, blind_row, copied, drawn, spoilt, write_pool
from experiments.selection.taught import taught
from vfl.models.boxes import PIXEL, UNIT, pixel_text
from vfl.probes import micro_limits as style
from vfl.probes.solids import PLURALS
from vfl.testbeds.micro.scenes import Scene, cell_box, paint, plain_scene

EVEN = {"each": 350, "blind": 200, "repeats": 100, "wrong": 100}
SKEWED = {"recognition": 400, "ocr": 250, "grounding": 110, "counting": 40}
TURNED = dict(zip(SKEWED, reversed(SKEWED.values()), strict=True))
READING = {"ocr": 400, "recognition": 250, "counting": 110, "grounding": 40}
SEEING = {"recognition": 400, "grounding": 200, "counting": 40}
SKEWED_JUNK = {"blind": 114, "repeats": 115, "wrong": 114}
PHRASED = 300  # rows of each function
DIRTY = dict(zip(FUNCTIONS, (400, 270, 180, 120), strict=True))
ANEW = ("grounding", "counting", "ocr", "recognition")  # as frequent as those of DIRTY, in this order
DIRTY_JUNK = {"blind": 120, "repeats": 80, "wrong": 120}
TAUGHT = dict(zip(DIRTY, (80, 120, 180, 320), strict=True))
TAUGHT_JUNK = {"blind": 80, "repeats": 60, "wrong": 80}
MIXED, KNOWN = dict.fromkeys(FUNCTIONS, 190), 0.6  # rows of each function, and the share of them that the model knows
HELD_OUT, FEW_HELD_OUT = 60, 40  # questions of each function


def write_even(out: Path, seed: int) -> None:
    """The pool whose functions are as frequent as each other."""
    write_pool(out, **EVEN, seed=seed)
    _add_test(out, [row for name in FUNCTIONS for row in drawn(name, HELD_OUT, seed + 7, out / "images", "test-")])


def write_skewed(out: Path, seed: int) -> None:
    """The skewed and dirty pool."""
    _write_skewed(out, seed, SKEWED)


def write_turned(out: Path, seed: int) -> None:
    """The skewed pool with the rarest function as the most frequent one."""
    _write_skewed(out, seed, TURNED)


def write_reading(out: Path, seed: int) -> None:
    """The skewed pool with reading as the most frequent function, and grounding as the rarest."""
    _write_skewed(out, seed, READING)


def write_seeing(out: Path, seed: int) -> None:
    """The skewed pool without reading, for a model that does not read."""
    _write_skewed(out, seed, SEEING)


def write_even_seeing(out: Path, seed: int) -> None:
    """The even pool without reading."""
    functions = tuple(SEEING)
    write_pool(out, **EVEN, seed=seed, functions=functions)
    _add_test(out, [row for name in functions for row in drawn(name, HELD_OUT, seed + 7, out / "images", "test-")])


def _write_skewed(out: Path, seed: int, counts: dict[str, int]) -> None:
    """A row's source is its function's, but for junk, which has one of its own."""
    folder = _fresh(out)

    def made(name: str, count: int) -> list[Row]:
        return [replace(row, source=name) for row in drawn(name, count, seed, folder / "images")]

    _write_dirty(folder, Random(f"skewed/{seed}"), counts, SKEWED_JUNK, made, "captions")
    _add_test(folder, [row for name in counts for row in drawn(name, HELD_OUT, seed + 7, folder / "images", "test-")])
    _finish(folder, out)


def _write_dirty(
    folder: Path,
    rng: Random,
    counts: dict[str, int],
    junk: dict[str, int],
    made: Callable[[str, int], list[Row]],
    source: str = "",
) -> None:
    """The pool of so many rows of each function, made by `made`, with junk; `source` is that of blind rows."""
    rows: list[Row] = []
    wrong: list[Row] = []
    whole = sum(counts.values())
    for name, count in counts.items():
        more = round(junk["wrong"] * count / whole)
        some = made(name, count + more)
        rows += some[:count]
        wrong += [spoilt(row, some, rng) for row in some[count:]]
    pictures = [row.image for row in rows]
    said = [replace(blind_row(n, rng, pictures), source=source) for n in range(junk["blind"])]
    repeats = [copied(n, row) for n, row in enumerate(rng.sample(rows, junk["repeats"]))]
    _write(folder / "pool.jsonl", rng, [*rows, *wrong, *said, *repeats])


def write_phrased(out: Path, seed: int) -> None:
    """The clean pool of many phrasings."""
    folder = _fresh(out)
    rows = [row for name in FUNCTIONS for row in _told(name, PHRASED, f"phrased/{seed}", folder / "images")]
    _write(folder / "pool.jsonl", Random(f"phrased/{seed}"), rows)
    test = [row for name in FUNCTIONS for row in _told(name, HELD_OUT, f"test/{seed}", folder / "images")]
    _add_test(folder, test)
    _finish(folder, out)


def write_phrased_dirty(out: Path, seed: int) -> None:
    """Many phrasings, the functions ever rarer, and junk."""
    _write_phrased_dirty(out, seed, DIRTY)


def write_phrased_turned(out: Path, seed: int) -> None:
    """The same with reading as the most frequent function and recognising as the rarest."""
    _write_phrased_dirty(out, seed, dict(zip(DIRTY, reversed(DIRTY.values()), strict=True)))


def write_phrased_anew(out: Path, seed: int) -> None:
    """The same with grounding as the most frequent function and recognising as the rarest."""
    _write_phrased_dirty(out, seed, dict(zip(ANEW, DIRTY.values(), strict=True)))


def _write_phrased_dirty(out: Path, seed: int, counts: dict[str, int]) -> None:
    folder = _fresh(out)

    def made(name: str, count: int) -> list[Row]:
        return _told(name, count, f"dirty/{seed}", folder / "images")

    _write_dirty(folder, Random(f"phrased and dirty/{seed}"), counts, DIRTY_JUNK, made)
    _add_test(folder, [row for name in FUNCTIONS for row in _told(name, HELD_OUT, f"test/{seed}", folder / "images")])
    _finish(folder, out)


def write_mixed(out: Path, seed: int) -> None:
    """Three fifths of what the model knows already, two of what it does not, and junk of both."""
    folder = _fresh(out)

    def made(name: str, count: int) -> list[Row]:
        known = round(count * KNOWN)
        images, part = folder / "images", f"pool/{seed}"
        rows = [*_known(name, known, part, images), *taught(name, count - known, part, images)]
        return Random(f"mixed/{seed}/{name}").sample(rows, count)  # those that get wrong answers come from both

    _write_dirty(folder, Random(f"mixed/{seed}"), MIXED, TAUGHT_JUNK, made)
    asked = _asked_anew(folder / "images", FUNCTIONS, seed)
    known = [row for name in FUNCTIONS for row in _known(name, FEW_HELD_OUT // 4, f"test/{seed}", folder / "images")]
    _add_test(folder, [*asked, *(replace(row, truth="known") for row in known)])
    _finish(folder, out)


def write_taught(out: Path, seed: int) -> None:
    """What the model around a pretrained decoder can't do yet: most rows to read, fewest to name, and junk."""
    folder = _fresh(out)

    def made(name: str, count: int) -> list[Row]:
        return taught(name, count, f"pool/{seed}", folder / "images")

    _write_dirty(folder, Random(f"taught/{seed}"), TAUGHT, TAUGHT_JUNK, made)
    _add_test(folder, _asked_anew(folder / "images", tuple(TAUGHT), seed))
    _finish(folder, out)


def _asked_anew(images: Path, functions: tuple[str, ...], seed: int) -> list[Row]:
    """Held-out questions of what is taught; no picture is one of the pool's."""
    shown = {Image.open(path).tobytes() for path in images.iterdir()}
    return [row for name in functions for row in taught(name, FEW_HELD_OUT, f"test/{seed}", images, shown)]


def _known(function: str, count: int, seed: str, folder: Path) -> list[Row]:
    """What the model around a pretrained decoder was taught, in the probes' wording."""
    rng = np.random.default_rng(Random(f"known/{seed}/{function}").randrange(2**32))
    rows = []
    for n in range(count):
        asked = plain(rng, function, UNIT)
        name = f"known-{function}-{seed.split('/')[0]}-{n:04d}"
        asked.picture.save(folder / f"{name}.png")
        rows.append(Row(name, function, asked.question, asked.answer, f"{name}.png"))
    return rows


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
    """A question about a scene in one of four phrasings, the first the model's own, and its answer."""
    if function == "recognition":
        there = rng.choice(scene.objects)[0] if scene.objects else None
        name = there if there and rng.random() < 0.7 else rng.choice(style.OBJECTS)
        some = f"an {name}" if name[0] in "aeiou" else f"a {name}"
        asked = (
            f"Is there {some} in the image? Answer yes or no.",
            f"Is there {some} in the image?",
            f"Answer yes or no. Is there {some} in the image?",
            f"Look for {some} in the image. Is there one?",
        )
        return rng.choice(asked), "yes" if name == there else "no"
    if function == "counting":
        assert scene.kind is not None
        things = PLURALS[scene.kind]
        asked = (
            f"How many {things} are there in the image? Answer with a number.",
            f"How many {things} are there?",
            f"Answer with a number. How many {things} are there in the image?",
            f"Look at the {things} in the image. How many are there?",
        )
        return rng.choice(asked), str(len(scene.solids))
    if function == "grounding":
        name, cell = rng.choice(scene.objects)
        own = PIXEL.box_prompt(f"Where is the {name}?", name)
        asked = (
            own,
            own.replace(f"Where is the {name}?", f"Where in the image is the {name}?"),
            own.replace(f"Where is the {name}?", f"Look for the {name}."),
            own.replace(f"Where is the {name}?", f"There is a {name} in the image. Where?"),
        )
        return rng.choice(asked), pixel_text(cell_box(cell))
    assert scene.word is not None
    asked = (
        "What text can you read in the image? Answer with the text only.",
        "What text can you read in the image?",
        "Answer with the text only. What can you read in the image?",
        "Look at the text in the image. What can you read?",
    )
    return rng.choice(asked), scene.word.text


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
