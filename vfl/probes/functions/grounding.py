"""Grounding: the same object at another place, among distractors that stay."""

from random import Random

from vfl.models.boxes import pixel_text
from vfl.probes import scene
from vfl.probes.draw import Box
from vfl.probes.pair import DrawnPair
from vfl.probes.style import Style


def question(label: str) -> str:
    """The question; each model family adds how it wants the box written."""
    return f"Where is the {label}?"


def draw_pair(rng: Random, style: Style, index: int) -> DrawnPair:
    """Target and source: the object in two cells; control: the target's box, another background and distractors."""
    label = rng.choice(style.object_names())
    tints = rng.sample(style.backgrounds, 2)
    size = scene.object_size(style, label, scene.side(rng, style, style.object_sides))
    cells = rng.sample(scene.grid_cells(style.object_grid), 2)
    here, there = (scene.place(rng, cell, style.object_grid, style.size, size) for cell in cells)
    stay = _others(rng, style, label, barred=cells)
    other = _others(rng, style, label, barred=cells[:1])
    return DrawnPair(
        function="grounding",
        question=question(label),
        answer=pixel_text(here),
        source_answer=pixel_text(there),
        match="box",
        image=scene.draw_objects(style, tints[0], {label: here, **stay}),
        source_image=scene.draw_objects(style, tints[0], {label: there, **stay}),
        control_image=scene.draw_objects(style, tints[1], {label: here, **other}),
        boxes={
            "image": [scene.floats(here)],
            "source_image": [scene.floats(there)],
            "control_image": [scene.floats(here)],
        },
        label=label,
    )


def _others(rng: Random, style: Style, label: str, barred: list[scene.Cell]) -> dict[str, Box]:
    """Distractors of other classes in cells that are free in both images."""
    count = rng.randint(1, style.max_objects - 1)
    names = scene.distractors(rng, style, {label}, count)
    free = [cell for cell in scene.grid_cells(style.object_grid) if cell not in barred]
    placed: dict[str, Box] = {}
    for name, cell in zip(names, rng.sample(free, len(names)), strict=True):
        size = scene.object_size(style, name, scene.side(rng, style, style.object_sides))
        placed[name] = scene.place(rng, cell, style.object_grid, style.size, size)
    return placed
