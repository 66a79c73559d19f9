"""OCR: two words of equal length on a blank canvas, in the same font, size, colour and place."""

from collections import Counter
from random import Random

from PIL import Image

from vfl.errors import InputError
from vfl.probes import draw
from vfl.probes.draw import Colour
from vfl.probes.group import Shown, check_size, ordered_pairs
from vfl.probes.pair import DrawnPair
from vfl.probes.style import Style, in_case

QUESTION = "What text can you read in the image? Answer with the text only."
MARGIN = 0.04  # of the image's side, around a word


def draw_pair(rng: Random, style: Style, index: int) -> DrawnPair:
    """Target and source differ in the word alone; control: the target's word in another font and place."""
    return _scene(rng, style, words=2, controls=1)[0]


def draw_group(rng: Random, style: Style, size: int) -> list[DrawnPair]:
    """The pairs of `size` words of equal length in one place."""
    lengths = Counter(map(len, {word.lower() for word in style.vocabulary()}))
    check_size("ocr", size, min(lengths.values()), "words of each length")
    return _scene(rng, style, words=size, controls=size)


def _scene(rng: Random, style: Style, words: int, controls: int) -> list[DrawnPair]:
    case = rng.choice(style.word_cases)
    word = rng.choice(style.vocabulary())
    equal = [other for other in style.vocabulary() if len(other) == len(word) and other.lower() != word.lower()]
    if not equal:
        raise InputError(f"no other word has as many letters as {word!r}; give at least two words of each length")
    texts = [in_case(text, case) for text in (word, *rng.sample(equal, words - 1))]
    tints = rng.sample(style.backgrounds, 2)
    fonts, colours = rng.sample(style.fonts, 2), rng.sample(style.word_colours, 2)
    size, corner = _fit(rng, style, fonts[0], texts)
    shown = []
    for n, text in enumerate(texts):
        image, box = _draw(style, tints[0], text, fonts[0], size, corner, colours[0])
        control, boxes = None, []
        if n < controls:
            control, control_box = _draw(
                style, tints[1], text, fonts[1], *_fit(rng, style, fonts[1], [text]), colours[1]
            )
            boxes = [control_box]
        shown.append(
            Shown(answer=text, image=image, boxes=[box], control_image=control, control_boxes=boxes, label=text)
        )
    return ordered_pairs(shown, function="ocr", question=QUESTION, match="text")


def _fit(rng: Random, style: Style, font: str, texts: list[str]) -> tuple[int, tuple[int, int]]:
    """A font size at which all texts fit the canvas, and a left upper corner for them."""
    margin = style.pixels(MARGIN)
    size = rng.randint(style.pixels(style.font_sizes[0]), style.pixels(style.font_sizes[1]))
    while True:
        extents = [draw.word_size(text, font, size) for text in texts]
        room = [style.size - 2 * margin - max(extent[axis] for extent in extents) for axis in (0, 1)]
        if min(room) >= 0:
            break
        size -= 1
        if size < 6:
            raise InputError(f"the words {texts} do not fit an image of {style.size} pixels; use a larger size")
    limits = [limit or (margin, margin + free) for limit, free in zip((style.word_x, style.word_y), room, strict=True)]
    return size, (rng.randint(*limits[0]), rng.randint(*limits[1]))


def _draw(
    style: Style, tint: Colour, text: str, font: str, size: int, corner: tuple[int, int], colour: Colour
) -> tuple[Image.Image, tuple[float, float, float, float]]:
    image = draw.blank(style.size, tint)
    x0, y0, x1, y1 = draw.word(image, text, corner, font, size, colour)
    return image, (float(x0), float(y0), float(x1), float(y1))
