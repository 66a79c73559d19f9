"""Scores in hand: their folder, their table, and what they show of themselves."""

import json
import os
from pathlib import Path

import pytest
from fake_scores import row, write_scores

import vfl
from vfl.errors import InputError
from vfl.select.score.result import Scores

FUNCTIONS = ("counting", "ocr")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        row(0, functions=FUNCTIONS, drops={"counting": 1.0}),
        row(1, functions=FUNCTIONS, drops={"counting": 1.0}),
        row(2, functions=FUNCTIONS, drops={"ocr": 1.0}),
        row(3, functions=FUNCTIONS, no_image=True),
        row(4, functions=FUNCTIONS, solved=False),
        row(5, functions=FUNCTIONS, kind="text"),
    ]
    return write_scores(tmp_path / "scores", rows, functions=FUNCTIONS)


def test_scores_stand_for_their_folder(folder: Path, tmp_path: Path) -> None:
    scores = Scores.load(folder)
    assert Path(scores) == folder
    assert os.fspath(scores) == str(folder)
    assert scores.functions == {"counting": [0], "ocr": [1]}
    assert repr(scores) == f"Scores({folder}: 6 of 6 rows)"


def test_rows_are_chosen_by_scores_in_hand(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "This."}]
    data.write_text("".join(json.dumps({"id": f"u{n:05}", "conversations": turns}) + "\n" for n in range(6)))
    rows = [row(n, functions=FUNCTIONS, kind="text") for n in range(6)]
    settings = {"data": [str(data)]}
    scores = Scores.load(write_scores(tmp_path / "scores", rows, functions=FUNCTIONS, settings=settings))
    subset = vfl.filter(scores, data, budget=2, policy="random", out=tmp_path / "subset")
    assert subset.manifest["rows"] == 2


def test_the_table_is_in_the_order_of_the_data(folder: Path) -> None:
    scores = Scores.load(folder)
    assert scores.table()["position"].to_pylist() == list(range(6))
    assert scores.table(["uid", "exact"]).column_names == ["uid", "exact"]
    assert scores.table(["exact"])["exact"].to_pylist() == [True, True, True, True, False, True]
    with pytest.raises(InputError, match=r"no column 'losss'; expected some of uid"):
        scores.table(["losss"])


def test_what_is_lost_is_of_the_right_answers_on_an_image(folder: Path) -> None:
    assert Scores.load(folder).lost() == {"image": 0.75, "counting": 0.5, "ocr": 0.25}


def test_they_show_what_is_lost(folder: Path) -> None:
    scores = Scores.load(folder)
    shown = scores._repr_html_()
    assert "6 of 6 rows scored by owner/model" in shown
    assert "<td>counting</td><td>0</td><td>50.0" in shown
    (axes,) = scores.plot().axes
    assert {"image", "counting", "ocr"} <= {label.get_text() for label in axes.get_yticklabels()}


def test_nothing_is_drawn_where_no_answer_was_right(tmp_path: Path) -> None:
    rows = [row(0, functions=FUNCTIONS, solved=False)]
    scores = Scores.load(write_scores(tmp_path / "scores", rows, functions=FUNCTIONS, parts=1))
    assert scores.lost() == {}
    assert "1 of 1 rows" in scores._repr_html_()
    with pytest.raises(InputError, match=r"No row in .* was answered rightly"):
        scores.plot()


def test_a_folder_without_scores_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no scores"):
        Scores.load(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"kind": "vfl subset"}))
    with pytest.raises(InputError, match="expected a folder that `vfl select score` wrote"):
        Scores.load(folder)
