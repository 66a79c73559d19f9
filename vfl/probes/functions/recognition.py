"""Recognition: an image with an object against the same canvas without it."""

from random import Random

from vfl.probes import draw, scene
from vfl.probes.group import Shown, check_size, ordered_pairs
from vfl.probes.pair import DrawnPair
from vfl.probes.style import Style


def question(label: str) -> str:
    """The question, with "an" before a vowel letter."""
    article = "an" if label[:1].lower() in "aeiou" else "a"
    return f"Is there {article} {label} in the image? Answer yes or no."


def draw_pair(rng: Random, style: Style, index: int) -> DrawnPair:
    """Target: an object on a blank canvas; source: the canvas; control: the object elsewhere on another tint."""
    return _scene(rng, style, places=1)[0]


def draw_group(rng: Random, style: Style, size: int) -> list[DrawnPair]:
    """The pairs of one object in `size` - 1 places with the empty canvas, `size` - 1 of them; one control for all."""
    check_size("recognition", size, style.object_grid**2, "places of the object, and the empty canvas")
    return _scene(rng, style, places=size - 1)


def _scene(rng: Random, style: Style, places: int) -> list[DrawnPair]:
    label = rng.choice(style.object_names())
    cells = rng.sample(scene.grid_cells(style.object_grid), places + 1)
    tints = rng.sample(style.backgrounds, 2)
    sizes = [scene.object_size(style, label, scene.side(rng, style, style.object_sides)) for _ in cells]
    *boxes, elsewhere = (
        scene.place(rng, cell, style.object_grid, style.size, size) for cell, size in zip(cells, sizes, strict=True)
    )
    control = scene.draw_objects(style, tints[1], {label: elsewhere})
    shown = [
        Shown(
            answer="yes",
            image=scene.draw_objects(style, tints[0], {label: box}),
            boxes=[scene.floats(box)],
            control_image=control,
            control_boxes=[scene.floats(elsewhere)],
        )
        for box in boxes
    ]
    shown.append(Shown(answer="no", image=draw.blank(style.size, tints[0])))
    return ordered_pairs(shown, function="recognition", question=question(label), match="yesno", label=label)
