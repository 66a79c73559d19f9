"""`vfl layers`: rankings, costs and the shift of a training set, printed and saved."""

import json
from pathlib import Path

import pytest

from vfl.testbeds.micro.words import write_task
from vfl.train.layers.rule_table import choices
from vfl.train.layers.rules import highest

MAP = Path(__file__).resolve().parents[2] / "recipes" / "micro" / "map.json"


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    out = tmp_path_factory.mktemp("words") / "task"
    write_task(out, rows=12, test=1)
    return out / "train.jsonl"


def test_rankings_costs_and_shift(vfl_command, words, tmp_path):
    options = ["--map", MAP, "--functions", "ocr", "--count", 3, "--sample", 8, "--warmup", 1, "--out", tmp_path]
    code, printed, _ = vfl_command("layers", "--data", words, *options)
    assert code == 0, printed
    saved = json.loads((tmp_path / "layers.json").read_text())
    assert saved["rows"] == 8
    chosen = {choice["rule"]: choice for choice in saved["choices"]}
    assert set(chosen) == {"gradient", "fisher", "similarity", "warmup", "uniform", "function", "full"}
    for rule, scores in saved["scores"].items():
        assert chosen[rule]["layers"] == highest(scores, 3)
    assert chosen["function"]["layers"] == [8]
    assert chosen["function"]["step"] == pytest.approx(0.6)
    assert saved["shift"]["reading"] == [8]
    assert "read the image (8)" in printed
    assert (tmp_path / "layers.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--data train.jsonl"),
        (["--data", "none.jsonl"], "no data at none.jsonl"),
        (["--functions", "ocr"], "needs the map"),
        (["--count", "11"], "1 to 10"),
        (["--sample", "0"], "at least 1"),
    ],
)
def test_bad_input_is_said(vfl_command, words, arguments, said):
    data = [] if not arguments or "--data" in arguments else ["--data", words]
    code, _, errors = vfl_command("layers", *data, *arguments)
    assert code == 2
    assert said in " ".join(errors.split())


def test_full_is_the_dearest_choice():
    offered = choices({"gradient": [0.1, 0.9, 0.5, 0.0]}, 2, 4, reading=[3])
    cost = {choice.rule: choice.step for choice in offered}
    assert cost["full"] == 1 == max(cost.values())
    assert cost["function"] < cost["gradient"] < 1
