"""Scenes of objects in a grid: one object a cell, so that nothing overlaps and the rest stays when one moves."""

from random import Random

from PIL import Image

from vfl.probes import draw
from vfl.probes.draw import Box, Colour
from vfl.probes.style import Style

Cell = tuple[int, int]  # column, row

# Classes that a model may call by each other's name never stand together where one of them is asked for.
KIN = (
    {"bird", "duck", "owl", "chicken"},
    {"cat", "lion", "tiger"},
    {"bear", "dog", "lion", "pig"},
    {"horse", "zebra", "cow"},
    {"fish", "whale"},
    {"bicycle", "motorcycle"},
    {"car", "bus", "truck", "tractor", "train"},
    {"laptop", "television"},
    {"tree", "flower"},
    {"orange", "lemon"},
)


def grid_cells(grid: int) -> list[Cell]:
    """All cells of a grid, row by row."""
    return [(column, row) for row in range(grid) for column in range(grid)]


def place(rng: Random, cell: Cell, grid: int, canvas: int, size: tuple[int, int]) -> Box:
    """A box of `size` (width, height) at a random place inside a cell of the `canvas` (side in pixels).

    Where there is room it keeps a hundredth of the canvas from the cell's edge, so that neighbours never touch.
    """
    corner: list[int] = []
    for position, length in zip(cell, size, strict=True):
        first, last = position * canvas // grid, (position + 1) * canvas // grid
        if length > last - first:
            raise ValueError(f"an object of {length} pixels does not fit a cell of {last - first}")
        margin = min(canvas // 100, (last - first - length) // 2)
        corner.append(rng.randint(first + margin, last - margin - length))
    return (corner[0], corner[1], corner[0] + size[0], corner[1] + size[1])


def side(rng: Random, style: Style, fractions: tuple[float, float]) -> int:
    """A side in pixels between two fractions of the image's side, in steps coarse enough for pictures to be reused."""
    return rng.randrange(style.pixels(fractions[0]), style.pixels(fractions[1]) + 1, max(1, style.size // 64))


def object_size(style: Style, label: str, longest: int) -> tuple[int, int]:
    """Width and height of an object's box when its longer side is `longest`; a square where boxes are not tight."""
    width, height = style.sprite(label).size
    scale = longest / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def draw_objects(style: Style, background: Colour, placed: dict[str, Box]) -> Image.Image:
    """A canvas with one object of each class in its box."""
    image = draw.blank(style.size, background)
    for label, box in placed.items():
        draw.paste(image, style.sprite(label), box)
    return image


def distractors(rng: Random, style: Style, labels: set[str], count: int) -> list[str]:
    """Up to `count` other classes, none of kin with `labels`."""
    barred = labels.union(*(kin for kin in KIN if kin & labels))
    others = [name for name in style.object_names() if name not in barred]
    return rng.sample(others, min(count, len(others)))


def floats(box: Box) -> tuple[float, float, float, float]:
    """A pixel box as floats, the form that pairs keep."""
    x0, y0, x1, y1 = box
    return (float(x0), float(y0), float(x1), float(y1))
