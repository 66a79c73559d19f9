"""Grounding: the same object at another place, among distractors that stay."""

from random import Random

from vfl.models.boxes import pixel_text
from vfl.probes import scene
from vfl.probes.draw import Box
from vfl.probes.group import Shown, check_size, ordered_pairs
from vfl.probes.pair import DrawnPair
from vfl.probes.style import Style


def question(label: str) -> str:
    """The question; each model family adds how it wants the box written."""
    return f"Where is the {label}?"


def draw_pair(rng: Random, style: Style, index: int) -> DrawnPair:
    """Target and source: the object in two cells; control: the target's box, another background and distractors."""
    return _scene(rng, style, places=2, controls=1)[0]


def draw_group(rng: Random, style: Style, size: int) -> list[DrawnPair]:
    """The pairs of one object in `size` cells."""
    most = style.object_grid**2 - 1  # a cell is left for a distractor
    check_size("grounding", size, most, f"places of a {style.object_grid} x {style.object_grid} grid")
    return _scene(rng, style, places=size, controls=size)


def _scene(rng: Random, style: Style, places: int, controls: int) -> list[DrawnPair]:
    label = rng.choice(style.object_names())
    tints = rng.sample(style.backgrounds, 2)
    size = scene.object_size(style, label, scene.side(rng, style, style.object_sides))
    cells = rng.sample(scene.grid_cells(style.object_grid), places)
    boxes = [scene.place(rng, cell, style.object_grid, style.size, size) for cell in cells]
    stay = _others(rng, style, label, barred=cells)
    others = [_others(rng, style, label, barred=[cell]) for cell in cells[:controls]]
    shown = [
        Shown(
            answer=pixel_text(box),
            image=scene.draw_objects(style, tints[0], {label: box, **stay}),
            boxes=[scene.floats(box)],
            control_image=scene.draw_objects(style, tints[1], {label: box, **others[n]}) if n < controls else None,
            control_boxes=[scene.floats(box)],
        )
        for n, box in enumerate(boxes)
    ]
    return ordered_pairs(shown, function="grounding", question=question(label), match="box", label=label)


def _others(rng: Random, style: Style, label: str, barred: list[scene.Cell]) -> dict[str, Box]:
    """Distractors of other classes in cells that are free in both images."""
    count = rng.randint(1, style.max_objects - 1)
    names = scene.distractors(rng, style, {label}, count)
    free = [cell for cell in scene.grid_cells(style.object_grid) if cell not in barred]
    names = names[: len(free)]  # a large group leaves few cells
    placed: dict[str, Box] = {}
    for name, cell in zip(names, rng.sample(free, len(names)), strict=True):
        size = scene.object_size(style, name, scene.side(rng, style, style.object_sides))
        placed[name] = scene.place(rng, cell, style.object_grid, style.size, size)
    return placed
