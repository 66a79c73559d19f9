"""Training: a resumed run is the uninterrupted one, the twin shares the free phase, and recipes are checked."""

from pathlib import Path

import pytest
import torch

from vfl.errors import InputError
from vfl.testbeds.micro.checkpoint import load_checkpoint
from vfl.testbeds.micro.config import Recipe, read_recipe
from vfl.testbeds.micro.train import overridden, train

RECIPE = Path(__file__).parents[3] / "recipes" / "micro" / "pretrain.yaml"


def elsewhere(recipe: Recipe, folder: Path, **changes: object) -> Recipe:
    return recipe.model_copy(update={"work": folder / "work", "output": folder / "out", **changes})


@pytest.mark.parametrize("stop", [2, 4])
def test_resuming_equals_going_through(recipe: Recipe, tmp_path: Path, stop: int) -> None:
    through = train(recipe)
    broken = elsewhere(recipe, tmp_path / "broken")
    train(broken, stop_at=stop)
    assert not broken.output.exists()
    resumed = train(broken, resume=True)
    for (name, first), second in zip(
        through.model.state_dict().items(), resumed.model.state_dict().values(), strict=True
    ):
        assert torch.equal(first, second), name
    files = sorted(path.name for path in recipe.output.iterdir())
    assert "planted.json" in files
    assert (recipe.output / "model.safetensors").read_bytes() == (broken.output / "model.safetensors").read_bytes()


def test_the_twin_shares_the_free_phase_and_has_no_truth(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe)
    twin = elsewhere(recipe, tmp_path / "twin", planted=False, plant_steps=1)
    train(twin)
    planted_free, twin_free = (load_checkpoint(run.work / "free.pt")["model"] for run in (recipe, twin))
    assert all(torch.equal(planted_free[name], twin_free[name]) for name in planted_free)
    assert not (twin.output / "planted.json").exists()


def test_checkpoints_of_another_recipe_and_earlier_runs_are_refused(recipe: Recipe) -> None:
    train(recipe, stop_at=1)
    with pytest.raises(InputError, match="--resume"):
        train(recipe)
    with pytest.raises(InputError, match="another seed"):
        train(recipe.model_copy(update={"seed": 5}), resume=True)


def test_a_folder_of_other_things_is_not_replaced(recipe: Recipe) -> None:
    recipe.output.mkdir()
    (recipe.output / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds no model"):
        train(recipe)
    assert (recipe.output / "thesis.txt").exists()


def test_the_shipped_recipe_is_read_and_unknown_keys_are_not(tmp_path: Path) -> None:
    recipe = read_recipe(RECIPE)
    assert recipe.planted
    assert overridden(recipe, ["planted=false", "plant_steps=10"]).steps == recipe.free_steps + 10
    with pytest.raises(InputError, match="KEY=VALUE"):
        overridden(recipe, ["colour=red"])
    with pytest.raises(InputError, match="batch"):
        overridden(recipe, ["batch=many"])
    bad = tmp_path / "bad.yaml"
    bad.write_text(RECIPE.read_text() + "colour: red\n")
    with pytest.raises(InputError, match="colour"):
        read_recipe(bad)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_on_a_gpu_reports_and_ends(recipe: Recipe) -> None:
    """The fixed pairs that the log reports on are where the model is."""
    training = train(recipe.model_copy(update={"evaluate_every": 1}))
    assert training.device.type == "cuda"
    assert training.step == recipe.steps
