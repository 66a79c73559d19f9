"""A pool of training rows whose composition is known: the four functions, blind rows, repeats, wrong answers.

Column `truth` says what a row is: a function, `blind` (the answer stands in the question), `repeat` (of an earlier row,
image and text alike) or `wrong` (the answer of another row of its function). Nothing in selecting reads it, except the
oracle that the policies are compared with.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from PIL import Image

from vfl.probes.make import drawn_pairs
from vfl.probes.style import MICRO_STYLE

FUNCTIONS = ("recognition", "counting", "grounding", "ocr")
JUNK = ("blind", "repeat", "wrong")
SAYINGS = ("yes", "no", "1", "2", "3", "4", "5")


@dataclass
class Row:
    """One row; `image` is the picture's file name in the pool's folder."""

    id: str
    truth: str
    question: str
    answer: str
    image: str
    source: str = ""

    def line(self) -> str:
        return json.dumps(
            {
                "id": self.id,
                "images": [f"images/{self.image}"],
                "prompt": [{"role": "user", "content": self.question}],
                "completion": [{"role": "assistant", "content": self.answer}],
                "truth": self.truth,
                **({"source": self.source} if self.source else {}),
            }
        )


def write_pool(
    out: Path, *, each: int, blind: int, repeats: int, wrong: int, seed: int, functions: tuple[str, ...] = FUNCTIONS
) -> None:
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
    others: list[Row] = []
    for function in functions:
        made = drawn(function, each + wrong // len(functions), seed, temporary / "images")
        found = list(made)
        rows += found[:each]
        others += [spoilt(row, found, rng) for row in found[each:]]
    pictures = [row.image for row in rows]
    said = [blind_row(n, rng, pictures) for n in range(blind)]
    repeated = [copied(n, row) for n, row in enumerate(rng.sample(rows, repeats))]
    everything = [*rows, *others, *said, *repeated]
    rng.shuffle(everything)
    text = "".join(row.line() + "\n" for row in everything)
    (temporary / "pool.jsonl").write_text(text, encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)


def drawn(function: str, count: int, seed: int, folder: Path, prefix: str = "") -> Iterator[Row]:
    """Both pictures of generated pairs, as rows of their own; names begin with the prefix."""
    from vfl.models.boxes import PIXEL

    made = 0
    for pair in drawn_pairs([function], pairs=(count + 1) // 2, seed=seed, style=MICRO_STYLE):
        question = PIXEL.box_prompt(pair.question, pair.label or "") if pair.match == "box" else pair.question
        for which, picture, answer in (("a", pair.image, pair.answer), ("b", pair.source_image, pair.source_answer)):
            if made < count:
                name = f"{prefix}{pair.id}-{which}"
                assert isinstance(picture, Image.Image)
                picture.save(folder / f"{name}.png")
                yield Row(name, function, question, answer, f"{name}.png")
                made += 1


def spoilt(row: Row, others: list[Row], rng: Random) -> Row:
    """The row with another one's answer."""
    answers = sorted({other.answer for other in others} - {row.answer})
    return replace(row, id=f"{row.id}-wrong", truth="wrong", answer=rng.choice(answers))


def blind_row(number: int, rng: Random, pictures: list[str]) -> Row:
    """A row whose answer stands in its question."""
    word = rng.choice(SAYINGS)
    return Row(f"blind-{number:04d}", "blind", f"Say {word}.", word, rng.choice(pictures))


def copied(number: int, row: Row) -> Row:
    """The same row under another name."""
    return replace(row, id=f"repeat-{number:04d}", truth="repeat")
