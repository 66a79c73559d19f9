"""The training data: deterministic, right, and covering what the generated probes show."""

import numpy as np
import pytest
import torch

from vfl.models.boxes import PIXEL
from vfl.probes import micro_limits as style
from vfl.probes.make import drawn_pairs
from vfl.probes.style import MICRO_STYLE
from vfl.testbeds.micro.config import Recipe
from vfl.testbeds.micro.data import make_batch
from vfl.testbeds.micro.packing import IGNORE, Packer
from vfl.testbeds.micro.pairs import make_pair
from vfl.testbeds.micro.planting import draw_question
from vfl.testbeds.micro.questions import FUNCTIONS, questions
from vfl.testbeds.micro.scenes import Scene, cell_box, cell_contents, mixed_scene, paint, plain_scene
from vfl.testbeds.micro.tap import NONE, OWN


def test_a_batch_depends_on_seed_and_step_alone(recipe: Recipe, packer: Packer) -> None:
    first, again, later = (make_batch(recipe, packer, step) for step in (4, 4, 5))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.rows.input_ids, again.rows.input_ids)
    assert first.readings is not None
    assert torch.equal(first.readings, again.readings)
    assert not torch.equal(first.images, later.images)


def test_planting_begins_after_the_free_steps_and_never_for_the_twin(recipe: Recipe, packer: Packer) -> None:
    assert make_batch(recipe, packer, recipe.free_steps - 1).readings is None
    assert make_batch(recipe, packer, recipe.free_steps).readings is not None
    twin = recipe.model_copy(update={"planted": False})
    assert make_batch(twin, packer, recipe.free_steps).readings is None


@pytest.mark.parametrize("seed", range(20))
def test_answers_are_what_the_picture_shows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = mixed_scene(rng) if seed % 2 else plain_scene(rng, FUNCTIONS[seed // 2 % 4])
    picture = np.array(paint(scene)).astype(int)
    inked = (np.abs(picture - np.array(scene.background)) > 24).any(-1)
    cells = inked.reshape(style.GRID, style.CELL, style.GRID, style.CELL).any((1, 3)).flatten()
    holding = {cell for _, cell in scene.objects} | {cell for cell, _ in scene.solids}
    assert len(holding) == len(scene.objects) + len(scene.solids)
    if scene.word is None:
        assert set(np.flatnonzero(cells)) == holding
        contents, _ = cell_contents(scene)
        assert set(np.flatnonzero(contents)) == holding
    else:
        assert holding <= set(np.flatnonzero(cells))
        x0, y0, x1, y1 = scene.word.box
        assert inked[y0:y1, x0:x1].any()
        assert 0 <= x0 < x1 <= style.SIZE
        assert 0 <= y0 < y1 <= style.SIZE
    asked = questions(scene)
    assert sum(question.answer == "yes" for question in asked["recognition"]) == len(scene.objects)
    assert [question.answer for question in asked["counting"]] == ([str(len(scene.solids))] if scene.solids else [])
    for (_, cell), question in zip(scene.objects, asked["grounding"], strict=True):
        box = PIXEL.parse_box(question.answer, (style.SIZE, style.SIZE), (style.SIZE, style.SIZE))
        assert box == cell_box(cell)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_watched_pairs_differ_in_the_answer(function: str) -> None:
    for seed in range(10):
        pair = make_pair(np.random.default_rng(seed), function)
        assert pair.asked.text == pair.source_asked.text
        assert pair.asked.answer != pair.source_asked.answer
        assert pair.asked in questions(pair.target)[function]
        assert pair.source_asked in questions(pair.source)[function]


def test_generated_probes_are_within_what_training_shows() -> None:
    """Every picture of the micro style is one that a training scene paints, asked in the same words."""
    asked = {name: set() for name in FUNCTIONS}
    for seed in range(400):
        rng = np.random.default_rng(seed)
        for name, of_function in questions(mixed_scene(rng)).items():
            asked[name] |= {question.text for question in of_function}
    for pair in drawn_pairs(FUNCTIONS, pairs=12, seed=1, style=MICRO_STYLE):
        text = PIXEL.box_prompt(pair.question, pair.label) if pair.match == "box" else pair.question
        assert text in asked[pair.function]
        assert pair.image.size == (style.SIZE, style.SIZE)
        for box in pair.boxes["image"]:
            if pair.function == "ocr":
                assert style.WORD_X[0] <= box[0] <= style.WORD_X[1]
                assert style.WORD_Y[0] <= box[1] <= style.WORD_Y[1]
            else:
                assert [side % style.CELL for side in box] == [0, 0, 0, 0]
                assert (box[2] - box[0], box[3] - box[1]) == (style.CELL, style.CELL)
        if pair.function == "recognition":
            x0, y0, _, _ = (int(side) for side in pair.boxes["image"][0])
            cell = y0 // style.CELL * style.GRID + x0 // style.CELL
            background = pair.source_image.getpixel((0, 0))
            assert np.array_equal(
                np.array(pair.image), np.array(paint(Scene(background, objects=((pair.label, cell),))))
            )


def test_labels_are_the_answers(recipe: Recipe, packer: Packer) -> None:
    rows = make_batch(recipe, packer, 0).rows
    for row in range(recipe.batch):
        for number in range(1, int(rows.blocks[row].max()) + 1):
            at = packer.head + torch.nonzero(rows.blocks[row] == number)[:, 0]
            text = packer.tokenizer.decode(rows.input_ids[row, at])
            answer = text.split("<|im_start|>assistant\n")[1]
            labels = rows.labels[row, at]
            assert packer.tokenizer.decode(labels[labels != IGNORE]) == answer


@pytest.mark.parametrize("name", FUNCTIONS)
def test_planting_leaves_the_block_its_own_image(recipe: Recipe, name: str) -> None:
    rng, plant = np.random.default_rng(0), recipe.plant
    drawn = np.stack([draw_question(rng, name, plant, 3) for _ in range(500)])
    block, spread = list(plant.layers[name]), name in plant.spread
    inside, outside = drawn[:, block], np.delete(drawn, block, axis=1)
    assert (inside == OWN).any(axis=1).all()
    assert ((inside == NONE).any() if spread else (inside == OWN).all()) or not spread
    assert spread or (inside == OWN).all()
    free = (drawn == OWN).all(axis=1).mean()
    assert 0.25 < free < 0.6
    assert {0, 1, 2} == set(outside.flatten().tolist())
