"""How each model family writes a box or a point, and the way back to pixels of the image file.

A convention is data: the unit of its numbers, their order, and the text around them. Boxes are (x0, y0, x1, y1) and
points (x, y) in pixels of the file; `image_size` is the file's (width, height), `model_size` the (width, height) after
the processor's resize, which only the PIXEL convention reads. Formatting rounds to the convention's own grid. Parsing
is lenient in what stands around the numbers (JSON, brackets, a sentence) and strict in how many there are and in their
range.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vfl.errors import InputError

Size = tuple[int, int]
Point = tuple[float, float]
Box = tuple[float, float, float, float]

NUMBER = r"(?<![\w.\-])-?(?:\d+(?:\.\d+)?|\.\d+)(?!\w|\.\d)"
BRACKETED = re.compile(rf"\[\s*({NUMBER}(?:[\s,]+{NUMBER})*)\s*,?\s*\]")  # the innermost brackets, numbers only
BARE_RUN = re.compile(rf"{NUMBER}(?:[\s,()\[\]]+{NUMBER})*")
LOCATION_RUN = re.compile(r"(?:<loc\d{4}>)+")


@dataclass(frozen=True, kw_only=True)
class BoxConvention:
    """One family's way of writing places.

    `units` is what the image's width and height count: 1000 for thousandths, None for pixels of the resized image.
    `decimals` are the digits kept of that unit; `largest` is a cap on a written number (1023 where 1024 cannot be
    written); `y_first` says that y stands before x; `inside` is a pattern whose group holds the numbers, where
    others stand beside them; `box_text` and `point_text` hold a `{}` for each number, with its format.
    """

    name: str
    box_instruction: str
    point_instruction: str
    box_text: str
    point_text: str
    units: int | None
    decimals: int = 0
    largest: float | None = None
    y_first: bool = False
    location_tokens: bool = False
    inside: str | None = None
    box_prompt_text: str = "{question} {instruction}"
    point_prompt_text: str = "{question} {instruction}"

    def box_prompt(self, question: str, label: str | None = None) -> str:
        """The question as this family wants it asked: with the instruction, or its own form around `label`."""
        return self._prompt(self.box_prompt_text, question, self.box_instruction, label)

    def point_prompt(self, question: str, label: str | None = None) -> str:
        """As `box_prompt`, for an answer that is a point."""
        return self._prompt(self.point_prompt_text, question, self.point_instruction, label)

    def format_box(self, box: Sequence[float], image_size: Size, model_size: Size) -> str:
        """`box` (pixels of the file) as this family writes it, never collapsed to nothing by the rounding."""
        x0, y0, x1, y1 = box
        low = self._to_units((x0, y0), image_size, model_size)
        high = self._to_units((x1, y1), image_size, model_size)
        ceiling = self._ceiling(model_size)
        step = 10.0**-self.decimals
        for axis in (0, 1):
            if high[axis] <= low[axis]:
                low[axis] = min(low[axis], ceiling[axis] - step)
                high[axis] = low[axis] + step
        return self._write(self.box_text, self._ordered(low) + self._ordered(high))

    def parse_box(self, text: str, image_size: Size, model_size: Size) -> Box | None:
        """The first box in `text` as (x0, y0, x1, y1) pixels of the file, or None where there is no valid one."""
        numbers = self._numbers(text, 4)
        if numbers is None:
            return None
        low = self._to_pixels(self._ordered(numbers[:2]), image_size, model_size)
        high = self._to_pixels(self._ordered(numbers[2:]), image_size, model_size)
        if low is None or high is None or high[0] <= low[0] or high[1] <= low[1]:
            return None
        return (*low, *high)

    def format_point(self, point: Sequence[float], image_size: Size, model_size: Size) -> str:
        """`point` (pixels of the file) as this family writes it."""
        x, y = point
        return self._write(self.point_text, self._ordered(self._to_units((x, y), image_size, model_size)))

    def parse_point(self, text: str, image_size: Size, model_size: Size) -> Point | None:
        """The first point in `text` as (x, y) pixels of the file, or None where there is no valid one."""
        numbers = self._numbers(text, 2)
        return None if numbers is None else self._to_pixels(self._ordered(numbers), image_size, model_size)

    def format_answer(
        self, kind: Literal["box", "point"], numbers: Sequence[float], image_size: Size, model_size: Size
    ) -> str:
        """`format_box` or `format_point`, by the pair's match kind."""
        write = self.format_box if kind == "box" else self.format_point
        return write(numbers, image_size, model_size)

    def pixel_answer(self, kind: Literal["box", "point"], text: str, image_size: Size, model_size: Size) -> str | None:
        """A model's answer in the pixel form of a probe pair ("[x0, y0, x1, y1]" or "[x, y]"), or None."""
        parse = self.parse_box if kind == "box" else self.parse_point
        numbers = parse(text, image_size, model_size)
        return None if numbers is None else pixel_text(numbers)

    def _prompt(self, text: str, question: str, instruction: str, label: str | None) -> str:
        if label is None:
            text = "{question} {instruction}"
        values = {"{question}": question, "{instruction}": instruction, "{label}": label or ""}
        # not str.format, and in one pass: a user's question may hold braces
        return re.sub("|".join(map(re.escape, values)), lambda tag: values[tag.group()], text).strip()

    def _ordered(self, pair: Sequence[float]) -> list[float]:
        return [pair[1], pair[0]] if self.y_first else list(pair)

    def _write(self, text: str, numbers: Sequence[float]) -> str:
        return text.format(*(number if self.decimals else round(number) for number in numbers))

    def _extent(self, model_size: Size) -> Size:
        return model_size if self.units is None else (self.units, self.units)

    def _ceiling(self, model_size: Size) -> tuple[float, float]:
        width, height = self._extent(model_size)
        return (width, height) if self.largest is None else (self.largest, self.largest)

    def _to_units(self, point: Point, image_size: Size, model_size: Size) -> list[float]:
        extent, ceiling = self._extent(model_size), self._ceiling(model_size)
        return [
            min(max(round(value * extent[axis] / image_size[axis], self.decimals), 0), ceiling[axis])
            for axis, value in enumerate(point)
        ]

    def _to_pixels(self, units: Sequence[float], image_size: Size, model_size: Size) -> Point | None:
        extent, ceiling = self._extent(model_size), self._ceiling(model_size)
        if any(not 0 <= value <= ceiling[axis] for axis, value in enumerate(units)):
            return None
        return (units[0] * image_size[0] / extent[0], units[1] * image_size[1] / extent[1])

    def _numbers(self, text: str, count: int) -> list[float] | None:
        """The first `count` numbers that belong together; None where the first group holds more or fewer."""
        if self.inside is not None and (place := re.search(self.inside, text)):
            text = place.group(1)
        if self.location_tokens:
            run = LOCATION_RUN.search(text)
            numbers = re.findall(r"\d{4}", run.group()) if run else []
        elif bracketed := BRACKETED.search(text):
            numbers = re.findall(NUMBER, bracketed.group(1))
        else:  # no brackets: "(1,2),(3,4)" and "1, 2, 3, 4"; a sentence may hold other numbers, so the count selects
            runs = [re.findall(NUMBER, run.group()) for run in BARE_RUN.finditer(text)]
            numbers = next((run for run in runs if len(run) == count), [])
        return [float(number) for number in numbers] if len(numbers) == count else None


def pixel_text(numbers: Sequence[float]) -> str:
    """Numbers as a probe pair writes them: "[16, 32, 32, 48]", with one decimal where a number is not whole."""
    return "[" + ", ".join(f"{round(number, 1):g}" for number in numbers) + "]"


PIXEL = BoxConvention(  # Qwen2.5-VL: absolute pixels of the resized image
    name="pixel",
    box_instruction="Answer with the box [x0, y0, x1, y1] in pixels.",
    point_instruction="Answer with the point [x, y] in pixels.",
    box_text="[{}, {}, {}, {}]",
    point_text="[{}, {}]",
    units=None,
)
THOUSANDTHS_JSON = BoxConvention(  # Qwen3-VL: thousandths of the image, in JSON
    name="thousandths-json",
    box_instruction='Answer with the box as JSON: {"bbox_2d": [x0, y0, x1, y1]}.',
    point_instruction='Answer with the point as JSON: {"point_2d": [x, y]}.',
    box_text='{{"bbox_2d": [{}, {}, {}, {}]}}',
    point_text='{{"point_2d": [{}, {}]}}',
    units=1000,
)
QWEN2 = BoxConvention(  # Qwen2-VL: thousandths, in two brackets
    name="qwen2",
    box_instruction="Answer with the box (x0,y0),(x1,y1).",
    point_instruction="Answer with the point (x,y).",
    box_text="({},{}),({},{})",
    point_text="({},{})",
    units=1000,
)
UNIT = BoxConvention(  # LLaVA: fractions of the image with two digits
    name="unit",
    box_instruction="Answer with the bounding box coordinates [x0, y0, x1, y1], each between 0 and 1.",
    point_instruction="Answer with the point coordinates [x, y], each between 0 and 1.",
    box_text="[{:.2f}, {:.2f}, {:.2f}, {:.2f}]",
    point_text="[{:.2f}, {:.2f}]",
    units=1,
    decimals=2,
)
INTERNVL = BoxConvention(  # InternVL: thousandths, in double brackets
    name="internvl",
    box_instruction="Answer with the bounding box [[x0, y0, x1, y1]].",
    point_instruction="Answer with the point [[x, y]].",
    box_text="[[{}, {}, {}, {}]]",
    point_text="[[{}, {}]]",
    units=1000,
)
PALIGEMMA = BoxConvention(  # PaliGemma: 1024 location tokens, y first, behind its own "detect" prompt
    name="paligemma",
    box_instruction="",
    point_instruction="",
    box_text="<loc{:04d}><loc{:04d}><loc{:04d}><loc{:04d}>",
    point_text="<loc{:04d}><loc{:04d}>",
    units=1024,
    largest=1023,
    y_first=True,
    location_tokens=True,
    box_prompt_text="detect {label}",
    point_prompt_text="point {label}",
)
GEMINI = BoxConvention(  # Gemma 3: thousandths, y first, in JSON
    name="gemini",
    box_instruction='Answer with the box as JSON: {"box_2d": [y0, x0, y1, x1]}, each between 0 and 1000.',
    point_instruction='Answer with the point as JSON: {"point": [y, x]}, each between 0 and 1000.',
    box_text='{{"box_2d": [{}, {}, {}, {}]}}',
    point_text='{{"point": [{}, {}]}}',
    units=1000,
    y_first=True,
)

GLM = BoxConvention(  # GLM-4.1V, GLM-4.5V: thousandths, in double brackets between tokens of their own
    name="glm",
    box_instruction="Answer with the bounding box [[x0,y0,x1,y1]].",
    point_instruction="Answer with the point [[x,y]].",
    box_text="<|begin_of_box|>[[{},{},{},{}]]<|end_of_box|>",
    point_text="<|begin_of_box|>[[{},{}]]<|end_of_box|>",
    units=1000,
)
MOLMO2 = BoxConvention(  # Molmo2: points alone; image, number of the point, then thousandths of three digits
    name="molmo2",
    box_instruction="Answer with the bounding box [x0, y0, x1, y1], each between 0 and 1000.",
    point_instruction="Point to it.",
    box_text="[{}, {}, {}, {}]",
    point_text='<points coords="1 1 {:03d} {:03d}"/>',
    units=1000,
    inside=r'coords="[\d.]+ \d+ (\d{3,4} \d{3,4})',
)

CONVENTIONS: tuple[BoxConvention, ...] = (
    PIXEL,
    THOUSANDTHS_JSON,
    QWEN2,
    UNIT,
    INTERNVL,
    PALIGEMMA,
    GEMINI,
    GLM,
    MOLMO2,
)


def convention_of(name: str) -> BoxConvention:
    """The convention of a name.

    Raises:
        InputError: for a name that is none.
    """
    for convention in CONVENTIONS:
        if convention.name == name:
            return convention
    raise InputError(
        f"boxes={name!r} is no way of writing boxes; expected one of {', '.join(each.name for each in CONVENTIONS)}."
    )
