"""The benchmark of a training step, at a small size: equal gradients, and the order of costs to expect."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import warm

pytestmark = pytest.mark.long

SCRIPT = Path(__file__).parents[2] / "bench" / "train_step.py"
LAYERS = ["all", "10-17,20-23", "20-23", "24-27"]


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    # Two threads that spin while they wait for a busy core make this twenty times slower.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return warm.finished([str(SCRIPT), "--small", *flags], environment)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    path = tmp_path_factory.mktemp("bench") / "train_step.json"
    # Twelve rows have each question's length with each answer's.
    done = run("--rows", "12", "--repeats", "1", "--out", str(path))
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(path.read_text())


@pytest.fixture(scope="module")
def arms(ran: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return ran[1]["arms"]


def test_the_table_names_every_arm_and_every_target(ran: tuple[str, dict[str, Any]]) -> None:
    text, measured = ran
    assert all(f"| {name} |" in text for name in measured["arms"])
    assert text.count("of the operations (target") == 4
    assert "| 1.000 |" in text
    assert "without checkpointing: as many operations here as by TRL" in text
    one, padded, packed = measured["packing"].values()
    assert one["tokens"] == padded["tokens"] == packed["tokens"]
    assert one["flops"] < packed["flops"] < padded["flops"], (
        "rows in a pack attend over all of it, and there is no padding"
    )


def test_gradients_are_those_of_the_trainer_alone(arms: dict[str, Any]) -> None:
    assert len(arms) == 17
    assert all(arm["gradient_difference"] < 1e-4 for arm in arms.values())


@pytest.mark.parametrize("layers", LAYERS)
def test_truncation_takes_fewer_operations_and_no_more_memory(layers: str, arms: dict[str, Any]) -> None:
    theirs, ours = arms[f"TRL, {layers}"], arms[f"here, {layers}"]
    assert ours["parameters"] == theirs["parameters"]
    assert ours["flops"] < 0.85 * theirs["flops"]
    assert ours["peak_bytes"] <= theirs["peak_bytes"]


@pytest.mark.parametrize("layers", LAYERS)
def test_checkpointing_trades_operations_for_memory(layers: str, arms: dict[str, Any]) -> None:
    on, off = arms[f"here, {layers}"], arms[f"here, {layers}, no checkpointing"]
    assert on["flops"] > off["flops"]
    assert on["peak_bytes"] < off["peak_bytes"]


def test_a_pass_after_the_image_is_short(arms: dict[str, Any]) -> None:
    """V + 2 S in place of 2 (V + S), for V tokens up to the image and S after it."""
    short, whole = arms["here, all, after the image, no checkpointing"], arms["here, all, no checkpointing"]
    assert short["flops"] < 0.75 * whole["flops"]
    assert short["peak_bytes"] < 0.7 * whole["peak_bytes"]


@pytest.mark.parametrize("kind", ["", ", no checkpointing"])
def test_the_lowest_layer_decides_the_cost(kind: str, arms: dict[str, Any]) -> None:
    costs = [arms[f"here, {layers}{kind}"] for layers in LAYERS]  # from layers 0, 10, 20 and 24 on
    for key in ("flops", "peak_bytes"):
        values = [cost[key] for cost in costs]
        assert values == sorted(values, reverse=True)
    forward_and_backward = costs[0]["flops"] - costs[1]["flops"]
    assert forward_and_backward > 2 * (costs[2]["flops"] - costs[3]["flops"])  # ten layers against four


def test_a_size_that_cannot_be_built_is_refused() -> None:
    done = run("--vision-tokens", "63")
    assert done.returncode == 2
    assert "63 vision tokens are no square" in done.stderr
    assert "Traceback" not in done.stderr
