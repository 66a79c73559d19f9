"""Where a row's object is, and what it is called: columns that some metrics need.

Boxes are read from `boxes` (x0, y0, x1, y1) or from `bbox` (x, y, width, height, as COCO and RefCOCO write it), both in
pixels of the file; numbers that all lie in 0 .. 1 are x0, y0, x1, y1 in shares of the image's sides, as LLaVA's
grounding data has them (`row_boxes.py`). `box_format` says otherwise. What looks like a box in any other column is
refused by its name: a metric that silently found no box would be read as one that found no effect.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from vfl.errors import InputError
from vfl.measure.row_boxes import BoxFormat, are_boxes, boxes_of, is_blank, is_box, is_number, shortened, spoken

NONE = "none"
BOXES, BBOX = "boxes", "bbox"
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
    read, kind = boxes_of(f"the column {column}", row[column], columns.format, size, corners=column != BBOX)
    return RowObject(read, _label(row, columns.label), f"{column} as {spoken(kind)}")


def _box_column(row: Mapping[str, Any], columns: ObjectColumns) -> str | None:
    """The column whose boxes are read, if the row has any."""
    if columns.box == NONE:
        return None
    if columns.box is not None:  # whoever names it knows of the others
        return None if is_blank(row.get(columns.box)) else columns.box
    there = [name for name in (BOXES, BBOX) if not is_blank(row.get(name))]
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
    by_value = [name for name, value in row.items() if is_box(value) or are_boxes(value)]
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
        return any(_holds_numbers(inner) or is_number(inner) for inner in value.values())
    return isinstance(value, list) and any(is_number(inner) or _holds_numbers(inner) for inner in value)


def _label(row: Mapping[str, Any], column: str) -> str | None:
    label = row.get(column)
    if is_blank(label):
        return None
    if isinstance(label, list) and all(inner == label[0] for inner in label):
        label = label[0]  # of several boxes, each with its name
    if not isinstance(label, str):
        raise InputError(
            f"the column {column} holds {shortened(label)}; expected the object's name as a text. Name the column that "
            "holds it with label_column (--set label_column=NAME)."
        )
    return label.strip()
