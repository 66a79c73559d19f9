"""A pool of training rows whose composition is known: the four functions, blind rows, repeats, wrong answers.

Column `truth` says what a row is: a function, `blind` (the answer stands in the question), `repeat` (of an earlier row,
image and text alike) or `wrong` (the answer of another row of its function). Nothing in selecting reads it, except the
oracle that the policies are compared with.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from PIL import Image

from vfl.probes.make import drawn_pairs
from vfl.probes.style import MICRO_STYLE

FUNCTIONS = ("recognition", "counting", "grounding", "ocr")
SAYINGS = ("yes", "no", "1", "2", "3", "4", "5")


@dataclass
class Row:
    """One row; `image` is the picture's file name in the pool's folder."""

    id: str
    truth: str
    question: str
    answer: str
    image: str

    def line(self) -> str:
        return json.dumps(
            {
                "id": self.id,
                "images": [f"images/{self.image}"],
                "prompt": [{"role": "user", "content": self.question}],
                "completion": [{"role": "assistant", "content": self.answer}],
                "truth": self.truth,
            }
        )


def write_pool(out: Path, *, each: int, blind: int, repeats: int, wrong: int, seed: int) -> None:
    """Write pool.jsonl and its pictures; the folder appears whole or not at all.

    Args:
        each: rows of each function with a right answer and a picture of their own.
        blind: rows that need no picture.
        repeats: copies of right rows.
        wrong: rows with another row's answer.
        seed: of everything drawn.
    """
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "images").mkdir(parents=True)
    rng = Random(f"pool/{seed}")
    rows: list[Row] = []
    spoilt: list[Row] = []
    for function in FUNCTIONS:
        drawn = _drawn(function, each + wrong // len(FUNCTIONS), seed, temporary / "images")
        found = list(drawn)
        rows += found[:each]
        spoilt += [_spoilt(row, found, rng) for row in found[each:]]
    pictures = [row.image for row in rows]
    said = [_blind(n, rng.choice(SAYINGS), rng.choice(pictures)) for n in range(blind)]
    copied = [_copy(n, row) for n, row in enumerate(rng.sample(rows, repeats))]
    everything = [*rows, *spoilt, *said, *copied]
    rng.shuffle(everything)
    text = "".join(row.line() + "\n" for row in everything)
    (temporary / "pool.jsonl").write_text(text, encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)


def _drawn(function: str, count: int, seed: int, folder: Path) -> Iterator[Row]:
    """Both pictures of generated pairs, as rows of their own."""
    from vfl.models.boxes import PIXEL

    made = 0
    for pair in drawn_pairs([function], pairs=(count + 1) // 2, seed=seed, style=MICRO_STYLE):
        question = PIXEL.box_prompt(pair.question, pair.label or "") if pair.match == "box" else pair.question
        for which, picture, answer in (("a", pair.image, pair.answer), ("b", pair.source_image, pair.source_answer)):
            if made < count:
                name = f"{pair.id}-{which}"
                assert isinstance(picture, Image.Image)
                picture.save(folder / f"{name}.png")
                yield Row(name, function, question, answer, f"{name}.png")
                made += 1


def _spoilt(row: Row, others: list[Row], rng: Random) -> Row:
    answers = sorted({other.answer for other in others} - {row.answer})
    return Row(f"{row.id}-wrong", "wrong", row.question, rng.choice(answers), row.image)


def _blind(number: int, word: str, picture: str) -> Row:
    return Row(f"blind-{number:04d}", "blind", f"Say {word}.", word, picture)


def _copy(number: int, row: Row) -> Row:
    return Row(f"repeat-{number:04d}", "repeat", row.question, row.answer, row.image)
