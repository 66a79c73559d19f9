"""Counting: one scene of equal solids with some of them added or removed, in the manner of CLEVR."""

from random import Random

from PIL import Image

from vfl.errors import InputError
from vfl.probes import draw, scene, solids
from vfl.probes.draw import Box, Colour
from vfl.probes.group import Shown, check_size, ordered_pairs
from vfl.probes.pair import DrawnPair
from vfl.probes.style import Style

Placed = list[tuple[Box, Colour]]


def question(plural: str) -> str:
    """The question; `plural` is one of solids.PLURALS."""
    return f"How many {plural} are there in the image? Answer with a number."


def draw_pair(rng: Random, style: Style, index: int) -> DrawnPair:
    """Target and source share the solids of the smaller scene; control: as many as the target, elsewhere.

    `index` runs through all ordered pairs of counts, so that both answers are balanced.
    """
    counts = _counts(style)
    count = counts[index % len(counts)]
    source_count = counts[(index + 1 + index // len(counts) % (len(counts) - 1)) % len(counts)]
    return _scene(rng, style, [count, source_count], controls=1)[0]


def draw_group(rng: Random, style: Style, size: int) -> list[DrawnPair]:
    """The pairs of `size` counts of one scene: each smaller one is part of the larger ones."""
    counts = sorted(set(_counts(style)))
    check_size("counting", size, len(counts), f"counts {', '.join(map(str, counts))}")
    return _scene(rng, style, rng.sample(counts, size), controls=size)


def _counts(style: Style) -> tuple[int, ...]:
    counts = style.counts
    if len(set(counts)) < 2 or min(counts) < 1 or max(counts) > style.solid_grid**2:
        raise InputError(f"counts {counts} must be at least two, between 1 and {style.solid_grid**2}")
    return counts


def _scene(rng: Random, style: Style, counts: list[int], controls: int) -> list[DrawnPair]:
    kind = rng.choice(solids.KINDS)
    tints = rng.sample(style.backgrounds, 2)
    placed = _scatter(rng, style, max(counts))
    elsewhere = [_scatter(rng, style, count) for count in counts[:controls]]
    shown = [
        Shown(
            answer=str(count),
            image=_draw(style, kind, tints[0], placed[:count]),
            boxes=[scene.floats(box) for box, _ in placed[:count]],
            control_image=_draw(style, kind, tints[1], elsewhere[n]) if n < controls else None,
            control_boxes=[scene.floats(box) for box, _ in elsewhere[n]] if n < controls else (),
        )
        for n, count in enumerate(counts)
    ]
    return ordered_pairs(
        shown, function="counting", question=question(solids.PLURALS[kind]), match="number", label=kind
    )


def _scatter(rng: Random, style: Style, count: int) -> Placed:
    """`count` places in distinct cells, each with a colour; one size a scene."""
    side = scene.side(rng, style, style.solid_sides)
    cells = rng.sample(scene.grid_cells(style.solid_grid), count)
    boxes = [scene.place(rng, cell, style.solid_grid, style.size, (side, side)) for cell in cells]
    return [(box, rng.choice(style.solid_colours)) for box in boxes]


def _draw(style: Style, kind: str, background: Colour, placed: Placed) -> Image.Image:
    image = draw.blank(style.size, background)
    for box, colour in placed:
        draw.paste(image, solids.solid(kind, box[2] - box[0], colour), box)
    return image
