"""Relation: an object on one side of another, against the same object on another side."""

from random import Random

from vfl.errors import InputError
from vfl.probes import scene
from vfl.probes.draw import Box
from vfl.probes.group import Shown, check_size, ordered_pairs
from vfl.probes.pair import DrawnPair
from vfl.probes.style import Style

STEPS: dict[str, scene.Cell] = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}


def draw_pair(rng: Random, style: Style, index: int) -> DrawnPair:
    """The second object stays; control: the same relation at another place on another background."""
    names = list(STEPS)
    answer = names[index % 4]
    source_answer = names[(index + 1 + index // 4 % 3) % 4]
    return _scene(rng, style, [answer, source_answer], controls=1)[0]


def draw_group(rng: Random, style: Style, size: int) -> list[DrawnPair]:
    """The pairs of `size` sides of one object on which the other stands."""
    check_size("relation", size, len(STEPS), f"sides {', '.join(STEPS)}")
    return _scene(rng, style, rng.sample(list(STEPS), size), controls=size)


def _scene(rng: Random, style: Style, answers: list[str], controls: int) -> list[DrawnPair]:
    labels = rng.sample(style.object_names(), 1)
    labels += scene.distractors(rng, style, set(labels), 1)
    if len(labels) < 2:
        raise InputError("relation probes need two classes that are not alike; give more objects")
    tints = rng.sample(style.backgrounds, 2)
    longest = scene.side(rng, style, style.object_sides)
    centre = rng.choice(_with_room(style.object_grid, set(answers)))
    stays = _box(style, labels[1], longest, centre)
    shown = []
    for n, answer in enumerate(answers):
        moved = _box(style, labels[0], longest, _step(centre, answer))
        control, boxes = None, []
        if n < controls:
            elsewhere = rng.choice([cell for cell in _with_room(style.object_grid, {answer}) if cell != centre])
            there = _box(style, labels[0], longest, _step(elsewhere, answer))
            beside = _box(style, labels[1], longest, elsewhere)
            control = scene.draw_objects(style, tints[1], {labels[0]: there, labels[1]: beside})
            boxes = [scene.floats(there)]
        shown.append(
            Shown(
                answer=answer,
                image=scene.draw_objects(style, tints[0], {labels[0]: moved, labels[1]: stays}),
                boxes=[scene.floats(moved)],
                control_image=control,
                control_boxes=boxes,
            )
        )
    return ordered_pairs(
        shown,
        function="relation",
        question=f"Is the {labels[0]} left of, right of, above or below the {labels[1]}?"
        " Answer with one word: left, right, above or below.",
        match="text",
        label=labels[0],
        choices=tuple(STEPS),
    )


def _step(cell: scene.Cell, name: str) -> scene.Cell:
    return (cell[0] + STEPS[name][0], cell[1] + STEPS[name][1])


def _with_room(grid: int, names: set[str]) -> list[scene.Cell]:
    """The cells whose neighbours on the named sides lie in the grid."""
    cells = scene.grid_cells(grid)
    return [cell for cell in cells if all(_step(cell, name) in cells for name in names)]


def _box(style: Style, label: str, longest: int, cell: scene.Cell) -> Box:
    """Centred in its cell, so that the relation is never a matter of opinion."""
    width, height = scene.object_size(style, label, longest)
    x = (2 * cell[0] + 1) * style.size // (2 * style.object_grid) - width // 2
    y = (2 * cell[1] + 1) * style.size // (2 * style.object_grid) - height // 2
    return (x, y, x + width, y + height)
