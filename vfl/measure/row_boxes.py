"""Boxes as rows write them -> (x0, y0, x1, y1) in pixels of the image's file.

A box is a list of four numbers, an object that names them ({"x", "y", "width", "height"}, {"x1", "y1", "x2", "y2"} and
their like), or a text: JSON, or what a model family writes (vfl/models/boxes.py), by its name in `box_format`.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from vfl.errors import InputError
from vfl.models.boxes import NUMBER, convention_of
from vfl.probes.match import Box

Convention = Literal["thousandths-json", "qwen2", "unit", "internvl", "paligemma", "gemini", "glm"]
BoxFormat = Literal["auto", "xyxy", "xywh", "relative_xyxy", "relative_xywh", Convention]
Size = tuple[int, int]

SLACK = 1.0  # pixels beyond the image's edge: COCO rounds x + width up
_SPOKEN: dict[str, str] = {
    "xyxy": "x0, y0, x1, y1 in pixels",
    "xywh": "x, y, width, height in pixels",
    "relative_xyxy": "x0, y0, x1, y1 in shares of the image's sides",
    "relative_xywh": "x, y, width, height in shares of the image's sides",
}
# Names of the four numbers, in their order -> whether the last two are corners.
_KEYS = {
    ("x", "y", "width", "height"): False,
    ("x", "y", "w", "h"): False,
    ("left", "top", "width", "height"): False,
    ("x0", "y0", "x1", "y1"): True,
    ("x1", "y1", "x2", "y2"): True,
    ("xmin", "ymin", "xmax", "ymax"): True,
    ("x_min", "y_min", "x_max", "y_max"): True,
    ("left", "top", "right", "bottom"): True,
}
# What families put around the numbers of a box that is the whole answer.
_AROUND = re.compile(
    r'</?\|?/?(?:box|begin_of|end_of)[\w|]*>|"(?:bbox|box)(?:_2d)?"\s*:|"label"\s*:\s*"[^"]*"|```(?:json)?'
)
_ONLY_NUMBERS = re.compile(r"\s*[\[({][\d\s.,\[\](){}]*[\])}]\s*")
_PLACES = re.compile(r"(?:<loc\d{4}>){4}")


def boxes_of(
    where: str, value: Any, form: BoxFormat, size: Size, *, corners: bool = True
) -> tuple[list[list[float]], BoxFormat]:
    """One box or several.

    Args:
        where: what holds them, for messages.
        value: as the row has it.
        form: what the numbers are; "auto": in 0 .. 1 shares of the sides, else pixels.
        size: (width, height) of the image.
        corners: whether the last two of numbers in pixels are a corner, and not a width and a height, where they have
            no names.

    Returns:
        Boxes (x0, y0, x1, y1) in pixels, and what their numbers were.

    Raises:
        InputError: for what is no box, or none inside the image.
    """
    if isinstance(value, Mapping) and list(value) == ["image"]:  # as probe suites write them
        value = value["image"]
    if form in get_args(Convention):
        several = value if isinstance(value, list) and value and not is_number(value[0]) else [value]
        return [list(_by_convention(where, box, form, size)) for box in several], form
    if isinstance(value, str):
        value = _parsed(value)
    of_shares = True  # numbers in 0 .. 1 are corners, unless they have names
    named = [value] if isinstance(value, Mapping) else value
    if isinstance(named, list) and named and all(isinstance(box, Mapping) for box in named):
        keys = next((keys for keys in _KEYS if all(set(keys) <= box.keys() for box in named)), None)
        if keys is not None:
            corners = of_shares = _KEYS[keys]
            value = [[box[key] for key in keys] for box in named]
    boxes = [value] if is_box(value) else value
    if not are_boxes(boxes):
        raise InputError(
            f"{where} holds {shortened(value)}; expected a box of four numbers, or a list of them. As a text it may be "
            f"JSON, or what a model family writes, which box_format names ({', '.join(get_args(Convention))})."
        )
    relative = all(0 <= number <= 1 for box in boxes for number in box)
    kind: BoxFormat = form
    if form == "auto" and relative:
        kind = "relative_xyxy" if of_shares else "relative_xywh"
    elif form == "auto":
        kind = "xyxy" if corners else "xywh"
    return [list(_pixels(where, box, kind, size)) for box in boxes], kind


def box_of_answer(answer: str, form: BoxFormat, size: Size) -> tuple[list[float], BoxFormat] | None:
    """The box that an answer is, as a whole, and what its numbers were; None for any other answer.

    Raises:
        InputError: for a box that is none inside the image, or whose numbers nothing says.
    """
    if not is_box_text(answer):
        return None
    value: Any = answer
    if form not in get_args(Convention):
        value = [float(number) for number in re.findall(NUMBER, _AROUND.sub(" ", answer))]
        if _PLACES.fullmatch(answer.strip()):
            raise InputError(f"the answer {answer!r} is a box; say with box_format=paligemma that its numbers are so.")
    (box,), kind = boxes_of("the answer", value, form, size)
    return box, kind


def is_box_text(text: str) -> bool:
    """Whether a text is four numbers in brackets, perhaps with a family's marks around them, and nothing else."""
    bare = _AROUND.sub(" ", text)
    four = len(re.findall(NUMBER, bare)) == 4
    return bool(_PLACES.fullmatch(text.strip()) or (four and _ONLY_NUMBERS.fullmatch(bare)))


def spoken(kind: BoxFormat) -> str:
    """What a box's numbers are, for a person."""
    return _SPOKEN.get(kind, f"{kind} writes them")


def is_box(value: Any) -> bool:
    """Whether this is a list of four numbers."""
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


def are_boxes(value: Any) -> bool:
    """Whether this is a list of such lists."""
    return isinstance(value, list) and bool(value) and all(map(is_box, value))


def is_number(value: Any) -> bool:
    """Whether this is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_blank(value: Any) -> bool:
    """Whether a column holds nothing."""
    return value is None or (isinstance(value, str | list | Mapping) and not value) or str(value).isspace()


def shortened(value: Any) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _parsed(text: str) -> Any:
    """The value of a text that is JSON, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _by_convention(where: str, value: Any, form: str, size: Size) -> Box:
    convention = convention_of(form)
    text = value if isinstance(value, str) else ""
    if is_box(value):
        text = "".join(f"<loc{round(number):04d}>" for number in value) if convention.location_tokens else str(value)
    count = text.count("<loc") if convention.location_tokens else len(re.findall(NUMBER, text))
    # in pixels of the file: none of these conventions counts pixels of the resized image
    box = convention.parse_box(text, size, size) if count == 4 else None
    if box is None:
        raise InputError(
            f"{where} holds {shortened(value)}; expected one box as {form} writes it, such as "
            f"{convention.format_box((0, 0, size[0] / 2, size[1] / 2), size, size)}."
        )
    return box


def _pixels(where: str, box: list[float], kind: BoxFormat, size: Size) -> Box:
    width, height = size
    x0, y0, x1, y1 = map(float, box)
    if kind in ("xywh", "relative_xywh"):
        x1, y1 = x0 + x1, y0 + y1
    if kind in ("relative_xyxy", "relative_xywh"):
        x0, y0, x1, y1 = x0 * width, y0 * height, x1 * width, y1 * height
    inside = min(x0, y0) >= -SLACK and x1 <= width + SLACK and y1 <= height + SLACK
    x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    if not inside or not (x0 < x1 and y0 < y1):
        raise InputError(
            f"{where} holds {shortened(box)}; read as {spoken(kind)} it is no box inside the image of {width}x{height} "
            f"pixels. Correct it, or say with box_format what its numbers are ({', '.join(get_args(BoxFormat))})."
        )
    return x0, y0, x1, y1
