"""The benchmark of scoring, at a tiny size: equal scores, and the operations that the windows need."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import warm

SCRIPT = Path(__file__).parents[2] / "bench" / "score.py"
TINY = ["--layers", "8", "--width", "64", "--heads", "2", "--vision-tokens", "144", "--text-tokens", "12"]


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    return warm.finished([str(SCRIPT), *TINY, *flags])


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("bench") / "score.json"
    done = run("--answer-tokens", "4", "--rows", "2", "--repeats", "0", "--lengths", "64,128", "--json", str(path))
    assert done.returncode == 0, done.stderr
    assert "one plain forward" in done.stdout
    return json.loads(path.read_text())


def test_all_contenders_give_the_same_scores(measured: dict[str, Any]) -> None:
    assert measured["max_difference"] < 1e-4 < measured["median_effect"]


def test_hooks_cost_a_forward_an_ablation(measured: dict[str, Any]) -> None:
    assert len(measured["ablations"]) == 4
    ratio = measured["contenders"]["hooks"]["flops"] / measured["contenders"]["one plain forward"]["flops"]
    assert 3.5 < ratio <= 5  # the tower runs once


def test_the_engine_costs_little_more_than_the_windows(measured: dict[str, Any]) -> None:
    ratio = measured["contenders"]["this engine"]["flops"] / measured["contenders"]["one plain forward"]["flops"]
    assert ratio < 1.5
    assert -0.01 < ratio / measured["floor"] - 1 < 0.05


def test_longer_texts_cost_more_and_the_engine_less_than_a_batch_of_all(measured: dict[str, Any]) -> None:
    ratios = {
        int(length): {name: cost["flops"] / costs["one plain forward"]["flops"] for name, cost in costs.items()}
        for length, costs in measured["lengths"].items()
    }
    assert list(ratios) == [16, 64, 128]
    engine = [ratio["this engine"] for ratio in ratios.values()]
    assert engine == sorted(engine)
    assert all(1 < ratio["this engine"] < ratio["cache and batch"] < ratio["hooks"] for ratio in ratios.values())


def test_a_size_that_cannot_be_built_is_refused() -> None:
    done = run("--vision-tokens", "63")
    assert done.returncode == 2
    assert "63 vision tokens" in done.stderr
    assert "Traceback" not in done.stderr
