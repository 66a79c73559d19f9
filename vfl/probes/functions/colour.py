"""Colour: a solid in one colour against the same solid in another, beside solids of other kinds."""

from random import Random

from PIL import Image

from vfl.probes import draw, scene, solids
from vfl.probes.draw import Box, Colour
from vfl.probes.group import Shown, check_size, ordered_pairs
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
    return _scene(rng, style, [answer, source_answer], controls=1)[0]


def draw_group(rng: Random, style: Style, size: int) -> list[DrawnPair]:
    """The pairs of `size` colours of one solid, none of which its neighbours have."""
    check_size("colour", size, len(COLOURS) - 2, f"{len(COLOURS)} colours, two of which the other solids have")
    return _scene(rng, style, rng.sample(list(COLOURS), size), controls=size)


def _scene(rng: Random, style: Style, answers: list[str], controls: int) -> list[DrawnPair]:
    kinds = rng.sample(solids.KINDS, len(solids.KINDS))
    tints = rng.sample(style.backgrounds, 2)
    others = [name for name in COLOURS if name not in answers]
    placed = _scatter(rng, style, kinds, [answers[0], *rng.sample(others, 2)])
    elsewhere = [_scatter(rng, style, kinds, [answer, *rng.sample(others, 2)]) for answer in answers[:controls]]
    asked = placed[0][1]
    shown = [
        Shown(
            answer=answer,
            image=_draw(style, tints[0], [(kinds[0], asked, answer), *placed[1:]]),
            boxes=[scene.floats(asked)],
            control_image=_draw(style, tints[1], elsewhere[n]) if n < controls else None,
            control_boxes=[scene.floats(elsewhere[n][0][1])] if n < controls else (),
        )
        for n, answer in enumerate(answers)
    ]
    return ordered_pairs(
        shown,
        function="colour",
        question=f"What colour is the {kinds[0]}? Answer with one word.",
        match="text",
        label=kinds[0],
        choices=tuple(COLOURS),
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
