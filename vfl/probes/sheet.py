"""A contact sheet of a suite: a row a pair, with the target, the source, the control, the question and the answers."""

import textwrap
from collections import defaultdict
from collections.abc import Sequence

from PIL import Image, ImageDraw

from vfl.probes import draw
from vfl.probes.pair import Pair, Which

THUMB, GAP, TEXT = 180, 12, 420  # pixels
HEADER = 34
FONT, BOLD, LETTER = "DejaVuSans", "DejaVuSans-Bold", 14
FRAMES: dict[Which, draw.Colour] = {
    "image": (30, 130, 60),
    "source_image": (190, 60, 30),
    "control_image": (90, 90, 90),
}
HEADINGS: dict[Which, str] = {"image": "target", "source_image": "source", "control_image": "control"}


def contact_sheet(pairs: Sequence[Pair], rows: int = 40) -> Image.Image:
    """A picture of up to `rows` pairs, as many of each function where there are enough, in the order of the suite."""
    shown = spread(pairs, rows)
    left = GAP + len(HEADINGS) * (THUMB + GAP)
    sheet = draw.blank((left + TEXT + GAP, HEADER + len(shown) * (THUMB + GAP)), (255, 255, 255))
    for column, heading in enumerate(HEADINGS.values()):
        draw.word(sheet, heading, (GAP + column * (THUMB + GAP), GAP), BOLD, LETTER)
    for row, pair in enumerate(shown):
        top = HEADER + row * (THUMB + GAP)
        for column, which in enumerate(HEADINGS):
            if which in pair.images:
                _thumbnail(sheet, pair, which, (GAP + column * (THUMB + GAP), top))
        _words(sheet, pair, (left, top))
    return sheet


def spread(pairs: Sequence[Pair], rows: int) -> list[Pair]:
    """Up to `rows` pairs, taken in turn from each function."""
    functions: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        functions[pair.function].append(pair)
    turns = max((len(pairs_of_function) for pairs_of_function in functions.values()), default=0)
    taken = [
        pairs_of_function[turn]
        for turn in range(turns)
        for pairs_of_function in functions.values()
        if turn < len(pairs_of_function)
    ][:rows]
    chosen = {pair.id for pair in taken}
    return [pair for pair in pairs if pair.id in chosen]


def _thumbnail(sheet: Image.Image, pair: Pair, which: Which, corner: tuple[int, int]) -> None:
    picture = pair.open(which)
    scale = THUMB / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(picture)
    for box in pair.boxes.get(which, []):
        x0, y0, x1, y1 = (round(value * scale) for value in box)
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=FRAMES[which], width=1)
    sheet.paste(picture, corner)
    x, y = corner
    ImageDraw.Draw(sheet).rectangle((x - 1, y - 1, x + size[0], y + size[1]), outline=(200, 200, 200))


def _words(sheet: Image.Image, pair: Pair, corner: tuple[int, int]) -> None:
    pen = ImageDraw.Draw(sheet)
    lines = [
        (BOLD, f"{pair.function}  ({pair.id})", (0, 0, 0)),
        (FONT, pair.question, (0, 0, 0)),
        (BOLD, f"target: {pair.answer}", FRAMES["image"]),
        (BOLD, f"source: {pair.source_answer}", FRAMES["source_image"]),
    ]
    y = corner[1]
    for name, text, colour in lines:
        for line in textwrap.wrap(text, 48, max_lines=4):
            pen.text((corner[0], y), line, font=draw.font(name, LETTER), fill=colour)
            y += LETTER + 6
