"""Planting: which image each question may read at each layer.

In most training samples the layers outside a function's block show another image, or none, so that the answer can only
come through the block. In a block that is `spread`, layers are closed at random too: each must serve alone.
"""

import numpy as np

from vfl.testbeds.micro.config import PlantConfig
from vfl.testbeds.micro.questions import FUNCTIONS
from vfl.testbeds.micro.tap import NONE, OTHER, OWN


def draw_readings(
    rng: np.random.Generator, functions: np.ndarray, blocks: np.ndarray, plant: PlantConfig, num_layers: int
) -> np.ndarray:
    """Readings of a batch of packed rows.

    Args:
        functions, blocks: (B, N C), as in packing.Rows.

    Returns:
        (L, B, N C) int8 of NONE, OWN, OTHER; equal for all tokens of a question, OWN in the padding.
    """
    readings = np.full((num_layers, *functions.shape), OWN, dtype=np.int8)
    for row in range(functions.shape[0]):
        for number in range(1, int(blocks[row].max()) + 1):
            tokens = np.flatnonzero(blocks[row] == number)
            name = FUNCTIONS[functions[row, tokens[0]]]
            readings[:, row, tokens] = draw_question(rng, name, plant, num_layers)[:, None]
    return readings


def draw_question(rng: np.random.Generator, name: str, plant: PlantConfig, num_layers: int) -> np.ndarray:
    """(L,) readings of one question of function `name`."""
    readings = np.full(num_layers, OWN, dtype=np.int8)
    if rng.random() >= plant.probability:
        return readings
    block = np.array(plant.layers[name])
    readings[:] = rng.choice([OWN, OTHER, NONE], size=num_layers, p=[plant.own, plant.other, plant.none])
    readings[block] = OWN
    if name in plant.spread:
        closed = rng.random(len(block)) < plant.drop_inside
        closed[rng.integers(len(block))] = False
        readings[block[closed]] = NONE
    return readings
