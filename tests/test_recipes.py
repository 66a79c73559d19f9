"""Every recipe is loaded and validated."""

from pathlib import Path

import pytest

from vfl.config import read_config
from vfl.locating.config import LocateConfig
from vfl.micro.config import read_recipe

RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*/locate.yaml")), ids=lambda path: path.parent.name)
def test_locate_recipes_are_valid(path):
    config = read_config(LocateConfig, path, {})
    assert str(config.out).startswith("runs/")
    assert f"vfl locate --config recipes/{path.parent.name}/locate.yaml" in (path.parent / "README.md").read_text()


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*/pretrain*.yaml")), ids=lambda path: path.name)
def test_pretraining_recipes_are_valid(path):
    assert read_recipe(path).steps > 0


def test_every_yaml_is_covered():
    known = {*RECIPES.glob("*/locate.yaml"), *RECIPES.glob("*/pretrain*.yaml")}
    assert set(RECIPES.rglob("*.yaml")) == known
