"""`vfl arms`: what it would do, and what it refuses."""

import pytest
import yaml


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    content = {"out": "r", "data": {"train": "t"}, "layers": [3], "evaluation": {"probes": "micro"}}
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_dry_run_lists_the_runs_and_writes_nothing(vfl_command, recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    axes = ["--arms", "full,gradient", "--modules", "all,mlp", "--learning-rates", "1e-3,5e-3", "--seeds", 2]
    chosen = ["study.new=ocr", "--dry", "--jobs", 2, "--out", tmp_path / "arms"]
    code, printed, errors = vfl_command("arms", recipe, *axes, *chosen)
    assert code == 0, errors
    assert "16 runs, 16 left, 2 at a time, on GPU 2 | 3." in printed
    assert "gradient, mlp" in printed
    assert "gradient-mlp-lr0.005-1" in printed
    assert "Left: nothing has run yet" in printed
    assert not (tmp_path / "arms").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--arms", "bets"], "There is no arm bets"),
        (["--replay", "maybe"], "'on' or 'off'"),
        (["--jobs", "0"], "--jobs"),
        (["study.layer=full"], "layers"),
    ],
)
def test_bad_input_is_said(vfl_command, recipe, arguments, said):
    code, _, errors = vfl_command("arms", recipe, *arguments, "--dry")
    assert code == 2
    assert said in " ".join(errors.split())
