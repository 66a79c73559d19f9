"""Chart: a bar chart in which one bar's value, or which of two bars is the highest, differs."""

from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from vfl.probes import draw
from vfl.probes.draw import Colour
from vfl.probes.group import Shown, check_size, ordered_pairs
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
    looks, asked, turn = _looks(rng, style), index // 2 % len(LABELS), index // 2
    if index % 2 == 0:
        other = (asked + 1 + turn // len(LABELS) % (len(LABELS) - 1)) % len(LABELS)
        return _highest(rng, style, looks, [asked, other], controls=1)[0]
    value = 1 + (turn + turn // TOP) % TOP  # in 50 turns every bar has had every value
    return _value(rng, style, looks, asked, [value], size=2, controls=1)[0]


def draw_group(rng: Random, style: Style, size: int) -> list[DrawnPair]:
    """The pairs of `size` highest bars, or of `size` values of one bar, as chance has it."""
    check_size("chart", size, len(LABELS), f"bars {', '.join(LABELS)}")
    looks = _looks(rng, style)
    if rng.random() < 0.5:
        return _highest(rng, style, looks, rng.sample(range(len(LABELS)), size), controls=size)
    # Values that are two apart from each other: the odd or the even ones.
    values = rng.sample(range(rng.randint(1, 2), TOP + 1, 2), size)
    return _value(rng, style, looks, rng.randrange(len(LABELS)), values, size=size, controls=size)


def _looks(rng: Random, style: Style) -> list[Look]:
    tints, bars = rng.sample(style.backgrounds, 2), rng.sample(BARS, 2)
    return [Look(tint, bar, rng.uniform(0.45, 0.75)) for tint, bar in zip(tints, bars, strict=True)]


def _highest(rng: Random, style: Style, looks: list[Look], highest: list[int], controls: int) -> list[DrawnPair]:
    """The highest bar and another one change places; all others are clearly lower."""
    first = highest[0]
    values, control = ([rng.randint(1, 6) for _ in LABELS] for _ in range(2))
    values[first] = rng.randint(8, TOP)
    control[first] = rng.randint(8, TOP)
    shown = []
    for n, bar in enumerate(highest):
        if 0 < n < controls:
            control = [rng.randint(1, 6) for _ in LABELS]
            control[bar] = rng.randint(8, TOP)
        swapped = list(values)
        swapped[first], swapped[bar] = values[bar], values[first]
        shown.append(
            Shown(
                answer=LABELS[bar],
                image=_draw(style, swapped, looks[0]),
                control_image=_draw(style, control, looks[1]) if n < controls else None,
                label=LABELS[bar],
            )
        )
    question = "Which bar is the highest? Answer with its letter."
    return ordered_pairs(shown, function="chart", question=question, match="text", choices=LABELS)


def _value(
    rng: Random, style: Style, looks: list[Look], asked: int, values: list[int], size: int, controls: int
) -> list[DrawnPair]:
    """One bar changes by at least two; the control keeps it and redraws the others."""
    bars, control = ([rng.randint(1, TOP) for _ in LABELS] for _ in range(2))
    if len(values) < size:
        values = [*values, rng.choice([value for value in range(1, TOP + 1) if abs(value - values[0]) >= 2])]
    shown = []
    for n, value in enumerate(values):
        if 0 < n < controls:
            control = [rng.randint(1, TOP) for _ in LABELS]
        bars[asked] = control[asked] = value
        shown.append(
            Shown(
                answer=str(value),
                image=_draw(style, bars, looks[0]),
                control_image=_draw(style, control, looks[1]) if n < controls else None,
            )
        )
    question = f"What is the value of bar {LABELS[asked]}? Answer with a number."
    return ordered_pairs(shown, function="chart", question=question, match="number", label=LABELS[asked])


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
