"""Planting by masks: what a question reads is what its reading says, at the layer where it says it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vfl.errors import InputError
from vfl.locate.recovery import read_truth
from vfl.testbeds.micro.config import PlantConfig
from vfl.testbeds.micro.questions import FUNCTIONS, Question
from vfl.testbeds.micro.scenes import Scene, plain_scene
from vfl.testbeds.micro.tap import NONE, OTHER, OWN
from vfl.testbeds.smol.config import Recipe
from vfl.testbeds.smol.parts import write_model
from vfl.testbeds.smol.phrasings import questions
from vfl.testbeds.smol.planting import Readings, draw_readings
from vfl.testbeds.smol.tower import look, pixels
from vfl.testbeds.smol.train import train
from vfl.testbeds.smol.training import Training

LAYERS = 3
BLOCKS = {"recognition": (0, 1), "counting": (1,), "grounding": (2,), "ocr": (2,)}


@pytest.fixture
def planted(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"plant": PlantConfig(layers=BLOCKS, spread=("recognition",), probability=1.0)})


@pytest.fixture
def training(recipe: Recipe) -> Training:
    training = Training(recipe, torch.device("cpu"))
    with torch.no_grad():
        for name, parameter in training.parts():
            if "lora_B" in name or name == "new_rows":
                parameter.normal_(std=0.3)
    return training


def pictures(count: int) -> list[tuple[Scene, list[Question]]]:
    rng = np.random.default_rng(3)
    scenes = [plain_scene(rng, "grounding") for _ in range(count)]
    return [(scene, questions(scene, rng, 0.0)[:2]) for scene in scenes]


def hidden(training: Training, row: list[tuple[Scene, list[Question]]], readings: Readings | None) -> torch.Tensor:
    """Final hidden states of the tokens of the first picture's questions, of one row."""
    rows = training.packer.pack([[asked for _, asked in row]])
    with torch.no_grad():
        features = look(training.model, pixels([scene for scene, _ in row]))
        states = training.decode(features, rows, readings)
    return states[0, (rows.numbers[0] > 0) & (rows.segments[0] == 0)]


def reading(training: Training, row: list[tuple[Scene, list[Question]]], kinds: list[int], other: int) -> Readings:
    """All questions of the row read `kinds` at the layers, and `other` is the other picture."""
    rows = training.packer.pack([[asked for _, asked in row]])
    drawn = draw_readings(np.random.default_rng(0), rows, PlantConfig(layers=BLOCKS), LAYERS)
    asks = rows.numbers > 0
    for layer, kind in enumerate(kinds):
        drawn.layers[layer] = torch.where(asks, kind, OWN)
    drawn.other[:] = other
    return drawn


def test_reading_the_own_picture_everywhere_is_the_free_forward(training: Training) -> None:
    row = pictures(2)
    free = hidden(training, row, None)
    torch.testing.assert_close(hidden(training, row, reading(training, row, [OWN] * 3, 1)), free)
    assert not torch.allclose(hidden(training, row, reading(training, row, [NONE] * 3, 1)), free, atol=1e-3)


def test_reading_another_picture_everywhere_is_being_asked_of_it(training: Training) -> None:
    (first, asked), (second, _), (third, _) = pictures(3)
    row = [(first, asked), (second, asked), (third, asked)]
    for other, scene in ((1, second), (2, third)):
        there = hidden(training, row, reading(training, row, [OTHER] * 3, other))
        torch.testing.assert_close(there, hidden(training, [(scene, asked)], None), atol=1e-5, rtol=1e-4)


def test_no_other_picture_in_the_row_is_none(training: Training) -> None:
    row = pictures(1)
    other = hidden(training, row, reading(training, row, [OWN, OTHER, OWN], -2))
    torch.testing.assert_close(other, hidden(training, row, reading(training, row, [OWN, NONE, OWN], -2)))


def test_a_question_reads_its_own_picture_in_its_block_and_strangers_of_its_row(planted: Recipe) -> None:
    training = Training(planted, torch.device("cpu"))
    seen = set()
    for step in range(6):
        rows, readings = (batch := training.batch(step)).rows, batch.readings
        assert readings is not None
        assert (readings.layers[:, rows.numbers == 0] == OWN).all()
        for number in rows.numbers[rows.numbers > 0].unique():
            mine = rows.numbers == number
            layers, others = readings.layers[:, mine], readings.other[mine]
            assert (layers == layers[:, :1]).all(), "all tokens of a question read alike"
            name = FUNCTIONS[int(rows.functions[mine].max())]
            block = layers[list(BLOCKS[name]), 0].tolist()
            assert OWN in block
            assert name == "recognition" or set(block) == {OWN}
            seen |= {(name, kind) for kind in layers[:, 0].tolist()}
            row = int(mine.any(1).nonzero()[0, 0])
            of_row = set(rows.segments[row][rows.segments[row] >= 0].tolist())
            stranger = int(others[0])
            assert (others == stranger).all()
            own = int(rows.segments[mine][0])
            assert stranger in (of_row - {own} or {-2})
    assert {(name, kind) for name in FUNCTIONS for kind in (NONE, OWN, OTHER)} <= seen


def test_a_planted_run_goes_on_from_parts_and_its_model_says_what_was_planted(
    recipe: Recipe, planted: Recipe, tmp_path: Path
) -> None:
    train(recipe)
    output = tmp_path / "planted.safetensors"
    going_on = planted.model_copy(update={"start": recipe.output, "work": tmp_path / "planted", "output": output})
    started = Training(going_on, torch.device("cpu"))
    assert started.step == 0
    before = Training(recipe, torch.device("cpu"))
    before.load(recipe.work / "checkpoint.pt")
    for (name, theirs), (_, ours) in zip(before.parts(), started.parts(), strict=True):
        assert torch.equal(theirs.half(), ours.half()), name
    train(going_on, stop_at=2)
    done = train(going_on, resume=True)
    write_model(output, str(recipe.lm), tmp_path / "model")
    assert read_truth(tmp_path / "model") == {name: list(block) for name, block in BLOCKS.items()}
    eyes = {name: part for name, part in done.parts() if "vision_model" in name}
    assert all(torch.equal(part.half(), dict(before.parts())[name].half()) for name, part in eyes.items())
    straight = planted.model_copy(
        update={"start": recipe.output, "work": tmp_path / "once", "output": tmp_path / "once.safetensors"}
    )
    train(straight)
    assert output.read_bytes() == straight.output.read_bytes()


def test_what_does_not_fit_the_start_or_the_model_is_refused(recipe: Recipe, planted: Recipe) -> None:
    train(recipe)
    other = planted.model_copy(update={"start": recipe.output, "rank": 3})
    with pytest.raises(InputError, match="another rank"):
        Training(other, torch.device("cpu"))
    deep = planted.model_copy(update={"plant": PlantConfig(layers=BLOCKS | {"ocr": (3, 7)})})
    with pytest.raises(InputError, match=r"names \[3, 7\]; the language model has layers 0 to 2"):
        Training(deep, torch.device("cpu"))
