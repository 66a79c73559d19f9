"""Recognition: an image with an object against the same canvas without it."""

from random import Random

from vfl.probes import draw, scene
from vfl.probes.pair import DrawnPair
from vfl.probes.style import Style


def question(label: str) -> str:
    """The question, with "an" before a vowel letter."""
    article = "an" if label[:1].lower() in "aeiou" else "a"
    return f"Is there {article} {label} in the image? Answer yes or no."


def draw_pair(rng: Random, style: Style, index: int) -> DrawnPair:
    """Target: an object on a blank canvas; source: the canvas; control: the object elsewhere on another tint."""
    label = rng.choice(style.object_names())
    cells = rng.sample(scene.grid_cells(style.object_grid), 2)
    tints = rng.sample(style.backgrounds, 2)
    sizes = [scene.object_size(style, label, scene.side(rng, style, style.object_sides)) for _ in range(2)]
    boxes = [
        scene.place(rng, cell, style.object_grid, style.size, size) for cell, size in zip(cells, sizes, strict=True)
    ]
    return DrawnPair(
        function="recognition",
        question=question(label),
        answer="yes",
        source_answer="no",
        match="yesno",
        image=scene.draw_objects(style, tints[0], {label: boxes[0]}),
        source_image=draw.blank(style.size, tints[0]),
        control_image=scene.draw_objects(style, tints[1], {label: boxes[1]}),
        boxes={"image": [scene.floats(boxes[0])], "control_image": [scene.floats(boxes[1])]},
        label=label,
    )
