"""The benchmark of the sweep, at a tiny size: equal results, and the operations that the formula of the floor says."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import warm

pytestmark = pytest.mark.long

SCRIPT = Path(__file__).parents[2] / "bench" / "locate.py"
TINY = ["--layers", "6", "--width", "64", "--heads", "2", "--vision-tokens", "64", "--text-tokens", "12"]


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    return warm.finished([str(SCRIPT), *TINY, *flags])


def forked(command: list[str], env: dict[str, str], **_: bool) -> subprocess.CompletedProcess[str]:
    """In place of `subprocess.run`, for the children that measure memory."""
    return warm.finished(command[1:], env)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script writes, run in this process, its children as forks."""
    path = tmp_path_factory.mktemp("bench") / "locate.json"
    flags = [*TINY, "--answer-tokens", "1,3", "--repeats", "1", "--json", str(path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(SCRIPT), *flags])
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(subprocess, "run", forked)
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return json.loads(path.read_text())


def test_memory_is_that_of_a_process_which_holds_nothing_else(measured: dict[str, Any]) -> None:
    for result in measured["results"]:
        peaks = [contender["peak_bytes"] for contender in result["contenders"].values()]
        assert len(peaks) >= 2
        assert all(peak is None or peak > 0 for peak in peaks)  # None where the system does not tell


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
