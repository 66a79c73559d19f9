"""The controlled experiment: which runs there are, and what its table says of finished ones."""

import json

import numpy as np
import pytest
import yaml

from vfl.errors import InputError
from vfl.train.arms.run import ARMS, plan_runs
from vfl.train.arms.table import _accuracy, _mean
from vfl.train.recipe import read_recipe


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    content = {
        "out": str(tmp_path / "one"),
        "data": {"train": str(tmp_path / "train.jsonl")},
        "layers": "3,4",
        "evaluation": {"probes": "micro", "pairs": 2},
    }
    path.write_text(yaml.safe_dump(content))
    return path


def test_each_run_is_a_recipe_of_its_own_that_differs_in_arm_and_seed_alone(recipe, tmp_path):
    runs = plan_runs(recipe, ["lora.r=4"], tmp_path / "arms", seeds=2)
    assert [(run.arm, run.seed) for run in runs] == [(arm, seed) for seed in (0, 1) for arm in ARMS]
    assert len({run.folder for run in runs}) == 8
    common = []
    for run in runs:
        read = read_recipe(run.recipe)
        assert (read.layers.arm, read.seed, read.lora, read.out) == (run.arm, run.seed, {"r": 4}, run.folder)
        assert run.arm != "random" or read.layers.seed == run.seed
        common.append(read.model_dump(mode="json", exclude={"layers", "seed", "out"}))
    assert all(rest == common[0] for rest in common)
    assert not any(run.finished for run in runs)


def test_what_can_not_be_compared_is_refused(recipe, tmp_path):
    with pytest.raises(InputError, match="evaluates nothing"):
        plan_runs(recipe, ["evaluation.probes=null"], tmp_path / "a")
    with pytest.raises(InputError, match="no arm best; choose from function"):
        plan_runs(recipe, [], tmp_path / "a", ["best"])
    with pytest.raises(InputError, match="own arm is 'full'"):
        plan_runs(recipe, ["layers=full"], tmp_path / "a")
    with pytest.raises(InputError, match="at least 1"):
        plan_runs(recipe, [], tmp_path / "a", seeds=0)
    assert not (tmp_path / "a").exists()


def test_a_folder_with_another_experiment_is_refused(recipe, tmp_path):
    runs = plan_runs(recipe, [], tmp_path / "arms", seeds=1)
    plan_runs(recipe, [], tmp_path / "arms", seeds=1)
    runs[0].folder.mkdir()
    with pytest.raises(InputError, match="other settings"):
        plan_runs(recipe, ["lora.r=2"], tmp_path / "arms", seeds=1)


def test_intervals_hold_the_mean_and_widen_when_seeds_differ():
    rng = np.random.default_rng(1)
    alike = np.tile((rng.random(200) < 0.7).astype(float), (5, 1))
    apart = np.stack([(rng.random(200) < share).astype(float) for share in (0.5, 0.6, 0.7, 0.8, 0.9)])
    narrow, wide = _mean(alike), _mean(apart)
    for rate in (narrow, wide):
        assert rate.low < rate.value < rate.high
    assert wide.high - wide.low > 1.3 * (narrow.high - narrow.low)
    assert json.dumps(vars(narrow)) == json.dumps(vars(_mean(alike)))


@pytest.mark.parametrize("items", [1, 2, 100])
@pytest.mark.parametrize("right", [0.0, 1.0])
def test_few_items_that_agree_leave_a_wide_interval(items, right):
    single, five = (_accuracy(np.full((seeds, items), right)) for seeds in (1, 5))
    assert single == five, "seeds share their items"
    assert single.high - single.low > 3 / (items + 4)
    assert single.low <= single.value <= single.high
    assert {0.0: single.low, 1.0: single.high}[right] == pytest.approx(right)
