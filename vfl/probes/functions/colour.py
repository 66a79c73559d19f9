"""Colour: a solid in one colour against the same solid in another, beside solids of other kinds."""

from random import Random

from PIL import Image

from vfl.probes import draw, scene, solids
from vfl.probes.draw import Box, Colour
from vfl.probes.pair import DrawnPair
from vfl.probes.style import Style

# Names that people and models agree on and spell alike: cyan is also called teal, and gray is also grey.
COLOURS: dict[str, Colour] = {name: solids.COLOURS[name] for name in ("red", "blue", "green", "purple")} | {
    "yellow": (236, 200, 44),
}
Placed = list[tuple[str, Box, str]]  # kind, box, colour


def draw_pair(rng: Random, style: Style, index: int) -> DrawnPair:
    """Target and source differ in one solid's colour; control: that colour, with all else changed."""
    names = list(COLOURS)
    answer = names[index % len(names)]
    source_answer = names[(index + 1 + index // len(names) % (len(names) - 1)) % len(names)]
    kinds = rng.sample(solids.KINDS, len(solids.KINDS))
    tints = rng.sample(style.backgrounds, 2)
    others = [name for name in names if name not in (answer, source_answer)]
    placed = _scatter(rng, style, kinds, [answer, *rng.sample(others, 2)])
    elsewhere = _scatter(rng, style, kinds, [answer, *rng.sample(others, 2)])
    return DrawnPair(
        function="colour",
        question=f"What colour is the {kinds[0]}? Answer with one word.",
        answer=answer,
        source_answer=source_answer,
        match="text",
        image=_draw(style, tints[0], placed),
        source_image=_draw(style, tints[0], [(kinds[0], placed[0][1], source_answer), *placed[1:]]),
        control_image=_draw(style, tints[1], elsewhere),
        boxes={
            "image": [scene.floats(placed[0][1])],
            "source_image": [scene.floats(placed[0][1])],
            "control_image": [scene.floats(elsewhere[0][1])],
        },
        label=kinds[0],
        choices=tuple(names),
    )


def _scatter(rng: Random, style: Style, kinds: list[str], colours: list[str]) -> Placed:
    side = scene.side(rng, style, style.object_sides)
    cells = rng.sample(scene.grid_cells(style.object_grid), len(kinds))
    boxes = [scene.place(rng, cell, style.object_grid, style.size, (side, side)) for cell in cells]
    return list(zip(kinds, boxes, colours, strict=True))


def _draw(style: Style, background: Colour, placed: Placed) -> Image.Image:
    image = draw.blank(style.size, background)
    for kind, box, colour in placed:
        draw.paste(image, solids.solid(kind, box[2] - box[0], COLOURS[colour]), box)
    return image
