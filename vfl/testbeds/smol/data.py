"""Training batches, made on the fly: batch number `step` of a seed is always the same, whatever was made before."""

from dataclasses import dataclass

import numpy as np

from vfl.testbeds.micro.questions import Question
from vfl.testbeds.micro.scenes import Scene
from vfl.testbeds.smol.config import Recipe
from vfl.testbeds.smol.packing import Packer, Rows
from vfl.testbeds.smol.phrasings import questions
from vfl.testbeds.smol.planting import Readings, draw_readings
from vfl.testbeds.smol.tower import draw_scenes


@dataclass
class SceneBatch:
    """Pictures in the order in which the rows show them."""

    scenes: list[Scene]
    rows: Rows
    readings: Readings | None  # None: every layer reads the own picture


def make_batch(recipe: Recipe, packer: Packer, step: int, num_layers: int) -> SceneBatch:
    """Batch number `step`: rows filled with pictures until the next one does not fit."""
    rng = np.random.default_rng([recipe.seed, 2, step])
    scenes: list[Scene] = []
    rows: list[list[list[Question]]] = []
    for _ in range(recipe.rows):
        row: list[list[Question]] = []
        left = packer.length
        while True:
            [scene] = draw_scenes(rng, 1, recipe.pictures)
            asked = questions(scene, rng, recipe.probe_phrasing, recipe.asked)
            while asked and packer.size(asked) > left:
                asked.pop()
            if not asked:
                break
            scenes.append(scene)
            row.append(asked)
            left -= packer.size(asked)
        rows.append(row)
    packed = packer.pack(rows)
    plant = recipe.plant
    return SceneBatch(scenes, packed, None if plant is None else draw_readings(rng, packed, plant, num_layers))
