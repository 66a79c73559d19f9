"""Models that learned nothing: weights by seed, one small model end to end, and the committed tables."""

import json
from pathlib import Path

import pytest
import torch

import vfl
from experiments.untrained import run
from vfl.probes.functions import PAPER_FUNCTIONS

HERE = Path(run.__file__).parent


@pytest.fixture(scope="module")
def trained():
    return vfl.load("embedded")


def test_sharpened_weights_are_the_seeds_own_times_twelve(trained) -> None:
    sharp, plain = (run.drawn(trained, 3, scale).layers[4].self_attn for scale in run.KINDS.values())
    torch.testing.assert_close(sharp.q_proj.weight, 12 * plain.q_proj.weight)
    torch.testing.assert_close(sharp.v_proj.weight, plain.v_proj.weight)


def test_a_model_of_random_weights_is_swept_whole(trained) -> None:
    found = run.located(run.drawn(trained, 0, run.KINDS["sharpened"]), 0, pairs=2, tokens=1)
    assert list(found) == list(PAPER_FUNCTIONS)
    assert all(entry["layers"] == [] for entry in found.values()), "two pairs can name none"
    assert max(entry["changed"] for entry in found.values()) > 0


def test_the_table_counts_models_and_functions() -> None:
    nothing = {"layers": [], "p": 0.5, "changed": 0.2, "control": 0.1}
    models = [{"ocr": nothing, "counting": nothing}, {"ocr": nothing | {"layers": [3], "p": 0.01}, "counting": nothing}]
    row = run.table({"sharpened": models}).splitlines()[-1]
    assert row.startswith("| sharpened | 2 | 1 of 2 (9–91 %) | 1 of 4 (5–70 %) | 1 of 4 (5–70 %) | 20.0% | 10.0% |")


def test_the_readme_has_the_tables_of_the_results() -> None:
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    files = sorted(HERE.glob("*.json"))
    assert files
    for path in files:
        models = json.loads(path.read_text(encoding="utf-8"))["models"]
        for kind, of_kind in models.items():
            assert run.table({kind: of_kind}).splitlines()[-1] in readme
            false = sum(any(entry["layers"] for entry in model.values()) for model in of_kind)
            assert false <= 0.05 * len(of_kind)
