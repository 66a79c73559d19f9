"""Training batches, made on the fly: batch number `step` of a seed is always the same, whatever was made before."""

from dataclasses import dataclass

import numpy as np
import torch

from vfl.testbeds.micro.config import Recipe
from vfl.testbeds.micro.packing import Packer, Rows
from vfl.testbeds.micro.planting import draw_readings
from vfl.testbeds.micro.questions import FUNCTIONS, Question, questions
from vfl.testbeds.micro.scenes import Scene, cell_contents, mixed_scene, paint, plain_scene


@dataclass
class SceneBatch:
    """B images, their packed questions, what each layer may read (None: everything), and what each cell holds."""

    images: torch.Tensor  # (B, H, W, 3) uint8
    rows: Rows
    readings: torch.Tensor | None  # (L, B, N C)
    other: torch.Tensor  # (B,) the other image of each image
    contents: torch.Tensor  # (B, cells)
    places: torch.Tensor  # (B, cells)


def choose_question(rng: np.random.Generator, asked: dict[str, list[Question]], seen: set[str]) -> Question:
    """A question of a function not yet `seen` in the row, else of any; "yes" as often as "no" where both occur."""
    waiting = [name for name in asked if name not in seen]
    candidates = asked[str(rng.choice(waiting or list(asked)))]
    answers = sorted({question.answer for question in candidates})
    if candidates[0].function == "recognition" and len(answers) > 1:
        answer = answers[rng.integers(2)]
        candidates = [question for question in candidates if question.answer == answer]
    return candidates[rng.integers(len(candidates))]


def fill_slots(rng: np.random.Generator, scene: Scene, packer: Packer) -> list[list[Question]]:
    """Questions for every slot of a row, each function that the scene has at least once if they fit.

    A repeat is not waste: while planting it is asked again under other readings.
    """
    asked = {name: candidates for name, candidates in questions(scene).items() if candidates}
    seen: set[str] = set()
    slots = []
    for _ in range(packer.slots):
        slot: list[Question] = []
        while packer.fits([*slot, question := choose_question(rng, asked, seen)]):
            slot.append(question)
            seen.add(question.function)
        slots.append(slot)
    return slots


def make_batch(recipe: Recipe, packer: Packer, step: int) -> SceneBatch:
    """Batch number `step`; planted from step `free_steps` on, unless the recipe trains the twin."""
    rng = np.random.default_rng([recipe.seed, step])
    scenes = [
        mixed_scene(rng) if rng.random() < recipe.mixed else plain_scene(rng, str(rng.choice(FUNCTIONS)))
        for _ in range(recipe.batch)
    ]
    rows = packer.pack([fill_slots(rng, scene, packer) for scene in scenes])
    readings = None
    if recipe.planted and step >= recipe.free_steps:
        drawn = draw_readings(rng, rows.functions.numpy(), rows.blocks.numpy(), recipe.plant, recipe.model.layers)
        readings = torch.from_numpy(drawn)
    contents, places = zip(*map(cell_contents, scenes), strict=True)
    return SceneBatch(
        images=torch.from_numpy(np.stack([np.array(paint(scene)) for scene in scenes])),
        rows=rows,
        readings=readings,
        other=torch.roll(torch.arange(recipe.batch), 1),
        contents=torch.from_numpy(np.stack(contents)),
        places=torch.from_numpy(np.stack(places)),
    )
