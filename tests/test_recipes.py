"""Every recipe is loaded and validated."""

from pathlib import Path

import pytest
import torch

from vfl.functionmap import FunctionMap
from vfl.io.config import read_config, validated
from vfl.loading.config import identify
from vfl.loading.load import load
from vfl.locate.config import LocateConfig
from vfl.select.recipe import read_select_recipe
from vfl.select.settings import ScoreConfig
from vfl.select.subset.write import FilterConfig
from vfl.testbeds.micro.config import read_recipe as read_pretraining
from vfl.testbeds.smol.config import Recipe as SmolRecipe
from vfl.train.arguments import trainer_arguments
from vfl.train.layers.choice import chosen_layers
from vfl.train.recipe import read_recipe

RECIPES = Path(__file__).parents[1] / "recipes"
SFT = sorted(RECIPES.glob("*/sft.yaml"))
TRAIN = sorted([*SFT, *RECIPES.glob("*/auto.yaml")])
SELECT = sorted(RECIPES.glob("*/select.yaml"))


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*/locate.yaml")), ids=lambda path: path.parent.name)
def test_locate_recipes_are_valid(path):
    config = read_config(LocateConfig, path, {})
    assert str(config.out).startswith("runs/")
    assert f"vfl locate --config recipes/{path.parent.name}/locate.yaml" in (path.parent / "README.md").read_text()


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*/pretrain*.yaml")), ids=lambda path: path.parent.name)
def test_pretraining_recipes_are_valid(path):
    recipe = read_config(SmolRecipe, path, {}) if path.parent.name == "smol" else read_pretraining(path)
    assert recipe.steps > 0
    module = f"vfl.testbeds.{path.parent.name}.train"
    assert f"python -m {module} recipes/{path.parent.name}/{path.name}" in (path.parent / "README.md").read_text()


@pytest.mark.parametrize("path", TRAIN, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_training_recipes_are_valid(path):
    """All keys, TRL's among them; the commands of their README name them."""
    recipe = read_recipe(path)
    arguments = trainer_arguments(recipe, torch.float32)
    assert arguments.gradient_checkpointing is False
    assert str(recipe.out).startswith("runs/")
    assert f"vfl train recipes/{path.parent.name}/{path.name}" in (path.parent / "README.md").read_text()


@pytest.mark.parametrize("path", SFT, ids=lambda path: f"{path.parent.name}/{path.name}")
@pytest.mark.parametrize("arm", ["layers=full", "layers.arm=reversed", "layers.arm=random", "match_rank=true"])
def test_training_recipes_take_every_arm(path, arm):
    read_recipe(path, [arm])


@pytest.mark.parametrize("path", SELECT, ids=lambda path: path.parent.name)
def test_selection_recipes_are_valid(path):
    recipe = read_select_recipe(path, [], top={}, score={}, filter={})
    scoring = validated(ScoreConfig, {**recipe.score, "out": recipe.scores_folder}, source="score")
    choosing = {**recipe.filter, "scores": recipe.scores_folder, "out": recipe.out}
    assert validated(FilterConfig, choosing, source="filter").policy == "balanced"
    assert scoring.map == Path("runs") / path.parent.name / "map.json"
    assert f"vfl select run --config recipes/{path.parent.name}/select.yaml" in (path.parent / "README.md").read_text()


def test_the_micro_map_belongs_to_the_embedded_model():
    """The map is checked by the weights' hash, and its ocr layers are those that were planted."""
    recipe = read_recipe(RECIPES / "micro" / "sft.yaml")
    fmap = FunctionMap.load(RECIPES / "micro" / "map.json")
    assert chosen_layers(recipe.layers, identify(load(None)), fmap) == [7, 8, 9]


def test_every_yaml_is_covered():
    known = {*RECIPES.glob("*/locate.yaml"), *RECIPES.glob("*/pretrain*.yaml"), *TRAIN, *SELECT}
    known |= {*RECIPES.glob("papers/*.yaml")}  # tests/test_papers.py
    assert set(RECIPES.rglob("*.yaml")) == known
