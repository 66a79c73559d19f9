"""Chart: a bar chart in which one bar's value, or which of two bars is the highest, differs."""

from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from vfl.probes import draw
from vfl.probes.draw import Colour
from vfl.probes.pair import DrawnPair
from vfl.probes.style import Style

LABELS = ("F", "G", "H", "J", "K")  # never a word, as "a" is, nor what an apostrophe leaves, as in "it's"
TOP = 10  # of the scale
FONT = "DejaVuSans"
BARS: tuple[Colour, ...] = ((66, 114, 196), (214, 122, 48), (84, 152, 84), (150, 92, 170))
INK, LINE = (40, 40, 40), (196, 196, 196)


@dataclass(frozen=True)
class Look:
    """What a chart looks like beside its values."""

    background: Colour
    bar: Colour
    thickness: float  # of a bar's share of the width


def draw_pair(rng: Random, style: Style, index: int) -> DrawnPair:
    """Even indices ask which bar is the highest, odd ones for a bar's value; control: other colours and other bars."""
    tints, bars = rng.sample(style.backgrounds, 2), rng.sample(BARS, 2)
    looks = [Look(tint, bar, rng.uniform(0.45, 0.75)) for tint, bar in zip(tints, bars, strict=True)]
    asked = index // 2 % len(LABELS)
    values, source, control = (_highest if index % 2 == 0 else _value)(rng, asked, index // 2)
    if index % 2 == 0:
        question = "Which bar is the highest? Answer with its letter."
        answers = [LABELS[asked], LABELS[source.index(max(source))]]
    else:
        question = f"What is the value of bar {LABELS[asked]}? Answer with a number."
        answers = [str(values[asked]), str(source[asked])]
    return DrawnPair(
        function="chart",
        question=question,
        answer=answers[0],
        source_answer=answers[1],
        match="text" if index % 2 == 0 else "number",
        image=_draw(style, values, looks[0]),
        source_image=_draw(style, source, looks[0]),
        control_image=_draw(style, control, looks[1]),
        label=LABELS[asked],
        choices=LABELS if index % 2 == 0 else (),
    )


def _highest(rng: Random, asked: int, turn: int) -> tuple[list[int], list[int], list[int]]:
    """The highest bar and another one change places; all others are clearly lower."""
    other = (asked + 1 + turn // len(LABELS) % (len(LABELS) - 1)) % len(LABELS)
    values, control = ([rng.randint(1, 6) for _ in LABELS] for _ in range(2))
    values[asked] = rng.randint(8, TOP)
    control[asked] = rng.randint(8, TOP)
    source = list(values)
    source[asked], source[other] = values[other], values[asked]
    return values, source, control


def _value(rng: Random, asked: int, turn: int) -> tuple[list[int], list[int], list[int]]:
    """One bar changes by at least two; the control keeps it and redraws the others."""
    values, control = ([rng.randint(1, TOP) for _ in LABELS] for _ in range(2))
    values[asked] = control[asked] = 1 + (turn + turn // TOP) % TOP  # in 50 turns every bar has had every value
    source = list(values)
    source[asked] = rng.choice([value for value in range(1, TOP + 1) if abs(value - values[asked]) >= 2])
    return values, source, control


def _draw(style: Style, values: list[int], look: Look) -> Image.Image:
    image = draw.blank(style.size, look.background)
    pen = ImageDraw.Draw(image)
    left, top, right, bottom = (style.pixels(edge) for edge in (0.12, 0.06, 0.96, 0.88))
    letter = style.pixels(0.05)
    for tick in range(TOP + 1):
        y = bottom - tick * (bottom - top) // TOP
        pen.line((left, y, right, y), fill=INK if tick == 0 else LINE, width=style.pixels(0.003))
        width, height = draw.word_size(str(tick), FONT, letter)
        draw.word(image, str(tick), (left - width - style.pixels(0.02), y - height // 2), FONT, letter, INK)
    pen.line((left, top, left, bottom), fill=INK, width=style.pixels(0.003))
    share = (right - left) / len(values)
    for position, (label, value) in enumerate(zip(LABELS, values, strict=True)):
        middle = left + (position + 0.5) * share
        half = share * look.thickness / 2
        pen.rectangle(
            (round(middle - half), bottom - value * (bottom - top) // TOP, round(middle + half), bottom), fill=look.bar
        )
        width, _ = draw.word_size(label, FONT, letter)
        draw.word(image, label, (round(middle) - width // 2, bottom + style.pixels(0.03)), FONT, letter, INK)
    return image
