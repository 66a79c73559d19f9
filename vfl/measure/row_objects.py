"""Where a row's object is, what it is called, and what its answer chooses from: columns that some metrics need.

Boxes are read from `boxes` (x0, y0, x1, y1) or from `bbox` (x, y, width, height, as COCO and RefCOCO write it), both in
pixels of the file; numbers that all lie in 0 .. 1 are x0, y0, x1, y1 in shares of the image's sides, as LLaVA's
grounding data has them. `box_format` says otherwise. What looks like a box in any other column is refused by its name:
a metric that silently found no box would be read as one that found no effect.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from vfl.errors import InputError
from vfl.probes.match import Box

BoxFormat = Literal["auto", "xyxy", "xywh", "relative_xyxy", "relative_xywh"]

NONE = "none"
BOXES, BBOX = "boxes", "bbox"
CHOICES = "choices"
SLACK = 1.0  # pixels beyond the image's edge: COCO rounds x + width up
OUTLINES = ("segmentation", "polygon", "polygons", "mask", "masks")  # beside a box they say the same again
_BOX_LIKE = re.compile(r"box|(^|_)(rects?|rectangles?|regions?|xyxy|xywh)($|_)")
_NUMBERS = re.compile(r"-?\d+(?:\.\d+)?")
_DEPTH = 3  # of lists and tables in a row where box-like names are looked for


@dataclass(frozen=True, kw_only=True)
class ObjectColumns:
    """Which columns hold a row's object.

    Attributes:
        box: the column with its boxes; None: `boxes` or `bbox`; "none": no box is read.
        format: what a box's four numbers are.
        label: the column with its name.
    """

    box: str | None = None
    format: BoxFormat = "auto"
    label: str = "label"


USUAL = ObjectColumns()


@dataclass(frozen=True)
class RowObject:
    """Boxes (x0, y0, x1, y1, pixels of the file), the object's name, and what the boxes were read as."""

    boxes: list[list[float]] = field(default_factory=list)
    label: str | None = None
    read_as: str | None = None


def object_of(row: Mapping[str, Any], size: tuple[int, int], columns: ObjectColumns) -> RowObject:
    """The object that a row names.

    Args:
        row: as it is stored.
        size: (width, height) of its image, pixels.
        columns: where to look.

    Raises:
        InputError: for boxes that can't be read or lie outside of the image, box-like columns that are not read, and
            the label of a box that is no text.
    """
    column = _box_column(row, columns)
    if column is None:
        label = row.get(columns.label)
        return RowObject(label=label.strip() or None if isinstance(label, str) else None)
    boxes = _listed(column, row[column])
    kind = _format(column, boxes) if columns.format == "auto" else columns.format
    read = [list(_pixels(column, box, kind, size)) for box in boxes]
    return RowObject(read, _label(row, columns.label), f"{column} as {_SPOKEN[kind]}")


def choices_of(row: Mapping[str, Any]) -> list[str]:
    """The texts of the column `choices`; none where the row has no such column.

    Raises:
        InputError: where they are no list of different texts.
    """
    choices = row.get(CHOICES)
    if _blank(choices):
        return []
    listed = choices if isinstance(choices, list) else []
    texts = [choice.strip() if isinstance(choice, str) else "" for choice in listed]
    if not texts or not all(texts) or len(set(texts)) != len(texts):
        raise InputError(
            f"the column {CHOICES} holds {_short(choices)}; expected a list of different texts, such as "
            '["a dog", "a cat"].'
        )
    return texts


_SPOKEN: dict[str, str] = {
    "xyxy": "x0, y0, x1, y1 in pixels",
    "xywh": "x, y, width, height in pixels",
    "relative_xyxy": "x0, y0, x1, y1 in shares of the image's sides",
    "relative_xywh": "x, y, width, height in shares of the image's sides",
}


def _box_column(row: Mapping[str, Any], columns: ObjectColumns) -> str | None:
    """The column whose boxes are read, if the row has any."""
    if columns.box == NONE:
        return None
    if columns.box is not None:  # whoever names it knows of the others
        return None if _blank(row.get(columns.box)) else columns.box
    there = [name for name in (BOXES, BBOX) if not _blank(row.get(name))]
    unknown = [name for name in _box_like(row) if name not in there and not (there and name in OUTLINES)]
    if unknown or len(there) > 1:
        listed = ", ".join([*(there if len(there) > 1 else []), *unknown])
        raise InputError(
            f"the columns {listed} look like boxes; read are {BOXES} (x0, y0, x1, y1) or {BBOX} (x, y, width, height), "
            f"one of them. Name the column of the row that holds them with box_column (--set box_column=NAME), and "
            f"their numbers with box_format ({', '.join(get_args(BoxFormat))}); box_column={NONE} measures without."
        )
    return there[0] if there else None


def _box_like(row: Mapping[str, Any]) -> list[str]:
    """Names, with dots where they lie within others, of what holds numbers and looks like boxes."""
    by_value = [name for name, value in row.items() if _four(value) or _fours(value)]
    return list(dict.fromkeys([*by_value, *_named(row, "", _DEPTH)]))


def _named(value: Any, path: str, depth: int) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            where = f"{path}.{name}" if path else str(name)
            word = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(name)).lower()
            if (_BOX_LIKE.search(word) or word in OUTLINES) and _holds_numbers(inner):
                yield where
            elif depth:
                yield from _named(inner, where, depth - 1)
    elif isinstance(value, list) and depth:
        for inner in value:
            yield from _named(inner, path, depth - 1)


def _holds_numbers(value: Any) -> bool:
    if isinstance(value, str):
        return len(_NUMBERS.findall(value)) >= 4
    if isinstance(value, Mapping):
        return any(_holds_numbers(inner) or _number(inner) for inner in value.values())
    return isinstance(value, list) and any(_number(inner) or _holds_numbers(inner) for inner in value)


def _listed(column: str, value: Any) -> list[list[float]]:
    """One box, several, or those of `image` as probe suites write them -> several."""
    if isinstance(value, Mapping) and list(value) == ["image"]:
        value = value["image"]
    boxes = [value] if _four(value) else value
    if not _fours(boxes):
        raise InputError(
            f"the column {column} holds {_short(value)}; expected a box of four numbers, or a list of them."
        )
    return [list(map(float, box)) for box in boxes]


def _format(column: str, boxes: list[list[float]]) -> BoxFormat:
    if all(0 <= number <= 1 for box in boxes for number in box):
        return "relative_xyxy"
    return "xywh" if column == BBOX else "xyxy"


def _pixels(column: str, box: list[float], kind: BoxFormat, size: tuple[int, int]) -> Box:
    width, height = size
    x0, y0, x1, y1 = box
    if kind in ("xywh", "relative_xywh"):
        x1, y1 = x0 + x1, y0 + y1
    if kind in ("relative_xyxy", "relative_xywh"):
        x0, y0, x1, y1 = x0 * width, y0 * height, x1 * width, y1 * height
    inside = min(x0, y0) >= -SLACK and x1 <= width + SLACK and y1 <= height + SLACK
    x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    if not inside or not (x0 < x1 and y0 < y1):
        raise InputError(
            f"the column {column} holds {_short(box)}; read as {_SPOKEN[kind]} it is no box inside the image of "
            f"{width}x{height} pixels. Correct it, or say with box_format what its numbers are "
            f"({', '.join(get_args(BoxFormat))})."
        )
    return x0, y0, x1, y1


def _label(row: Mapping[str, Any], column: str) -> str | None:
    label = row.get(column)
    if _blank(label):
        return None
    if not isinstance(label, str):
        raise InputError(
            f"the column {column} holds {_short(label)}; expected the object's name as a text. Name the column that "
            "holds it with label_column (--set label_column=NAME)."
        )
    return label.strip()


def _four(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_number, value))


def _fours(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_four, value))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | Mapping) and not value) or str(value).isspace()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
