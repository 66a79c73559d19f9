"""A task with head-room for the embedded model: words of four letters, where it was trained on three.

    python -m vfl.testbeds.micro.words --out runs/words [--rows 1600] [--test 200] [--seed 0]

Writes train.jsonl and test.jsonl (prompt, completion, images) with their pictures. The same alphabet, fonts, sizes and
question as in its training; letters are drawn at random and no word stands in both files. Every fourth training word
has three letters, so that the length has to be read too.
"""

import argparse
import json
import shutil
import string
import sys
from pathlib import Path
from random import Random

from PIL import Image

from vfl.errors import InputError
from vfl.probes import draw
from vfl.probes import micro_limits as limits
from vfl.probes.functions.ocr import QUESTION

LEFT = {3: limits.WORD_X, 4: (4, 12)}  # pixels: four letters are 63 of 80 wide
SHORT = 4  # every so many training words has a letter less


def draw_words(count: int, letters: int, seed: int) -> list[str]:
    """`count` different words of random capitals, those of a seed."""
    rng = Random(f"words/{seed}/{letters}")
    words: dict[str, None] = {}
    while len(words) < count:
        words["".join(rng.choices(string.ascii_uppercase, k=letters))] = None
    return list(words)


def picture(word: str, seed: int) -> Image.Image:
    """A word on a blank canvas, its look drawn from the word and the seed."""
    rng = Random(f"look/{seed}/{word}")
    image = draw.blank(limits.SIZE, rng.choice(limits.BACKGROUNDS))
    corner = (rng.randint(*LEFT[len(word)]), rng.randint(*limits.WORD_Y))
    draw.word(image, word, corner, rng.choice(limits.FONTS), limits.FONT_SIZE, rng.choice(limits.WORD_COLOURS))
    return image


def write_task(out: Path, rows: int = 1600, test: int = 200, seed: int = 0) -> None:
    """Write both files and their pictures; the folder appears whole or not at all.

    Raises:
        InputError: when the folder is there already, or no row is asked for.
    """
    if out.exists():
        raise InputError(f"{out} exists already. Remove it, or give another --out.")
    if rows < 1 or test < 1:
        raise InputError(f"{rows} training and {test} test rows were asked for; expected at least 1 of each.")
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "images").mkdir(parents=True)
    words = draw_words(rows + test, 4, seed)
    train = words[:rows]
    train[SHORT - 1 :: SHORT] = draw_words(len(train[SHORT - 1 :: SHORT]), 3, seed)
    for name, part in (("train", train), ("test", words[rows:])):
        with (temporary / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for word in part:
                picture(word, seed).save(temporary / "images" / f"{word}.png")
                row = {
                    "id": word,
                    "images": [f"images/{word}.png"],
                    "prompt": [{"role": "user", "content": QUESTION}],
                    "completion": [{"role": "assistant", "content": word}],
                }
                file.write(json.dumps(row) + "\n")
    temporary.rename(out)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m vfl.testbeds.micro.words",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1600)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        write_task(options.out, options.rows, options.test, options.seed)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
