"""The benchmark of the sweep, at a tiny size: equal results, and the operations that the formula of the floor says."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import warm

SCRIPT = Path(__file__).parents[2] / "bench" / "locate.py"
TINY = ["--layers", "6", "--width", "64", "--heads", "2", "--vision-tokens", "64", "--text-tokens", "12"]


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    return warm.finished([str(SCRIPT), *TINY, *flags])


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("bench") / "locate.json"
    done = run("--answer-tokens", "1,3", "--repeats", "1", "--json", str(path))
    assert done.returncode == 0, done.stderr
    assert "this engine" in done.stdout
    return json.loads(path.read_text())


def test_the_engine_and_the_hooks_agree(measured: dict[str, Any]) -> None:
    for result in measured["results"]:
        assert result["max_logit_difference"]["this engine"] < 1e-4 < result["median_effect_of_a_swap"]
        assert result["equal_answers"]["this engine"] == result["rows"] == 8


def test_one_token_answers_cost_the_floor(measured: dict[str, Any]) -> None:
    assert measured["results"][0]["above_floor"] == pytest.approx(0, abs=0.01)


def test_further_tokens_cost_little_more_than_the_floor(measured: dict[str, Any]) -> None:
    assert -0.01 < measured["results"][1]["above_floor"] < 0.05


def test_hooks_cost_one_forward_a_row(measured: dict[str, Any]) -> None:
    result = measured["results"][0]
    expected = result["rows"] + 2 * result["tower_flops"] / result["forward_flops"]
    assert result["contenders"]["hooks"]["forwards"] == pytest.approx(expected, rel=0.01)


def test_a_size_that_cannot_be_built_is_refused() -> None:
    done = run("--vision-tokens", "63")
    assert done.returncode == 2
    assert "63 vision tokens" in done.stderr
    assert "Traceback" not in done.stderr
