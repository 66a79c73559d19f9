"""Rows, recipes and runs of tiny models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trained

from vfl.train.run import Outcome, train


@pytest.fixture(scope="session")
def qwen(tiny_folder) -> Path:
    """The checkpoint that most runs start from: four decoder layers, and rows of any kind."""
    return tiny_folder("qwen2_5_vl")


@pytest.fixture(scope="session")
def data_of(tmp_path_factory) -> Callable[..., Path]:
    """The data file of given kinds of rows (`trained.row`), written once; read it, do not write."""
    files: dict[tuple[str, ...], Path] = {}

    def data(*kinds: str) -> Path:
        if kinds not in files:
            files[kinds] = trained.write_data(tmp_path_factory.mktemp("data"), kinds)
        return files[kinds]

    return data


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Callable[..., Outcome]:
    """Train in this process: `run(model, rows, out, **changed settings)`; `how` are options of the command."""

    def run_recipe(model: Path, rows: Path, out: Path, how: dict[str, Any] | None = None, **changed: Any) -> Outcome:
        recipe = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
        values = trained.settings(model, rows, out, **changed)
        return train(trained.write_recipe(recipe, values), progress=False, **(how or {}))

    return run_recipe
