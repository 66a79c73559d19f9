"""The pool of the selection experiment has the composition that it says."""

import sys
from collections import Counter
from pathlib import Path

import pytest

from vfl.data import Sample, read

RECIPE = Path(__file__).parents[3] / "experiments" / "selection"


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(RECIPE)])
    import pool

    return pool


def test_the_pool_is_what_it_says(recipe, tmp_path):
    recipe.write_pool(tmp_path / "pool", each=6, blind=5, repeats=4, wrong=8, seed=0)
    rows = list(read(tmp_path / "pool" / "pool.jsonl"))
    assert all(isinstance(row, Sample) for row in rows)
    counts = Counter(row.columns["truth"] for row in rows)
    assert counts == {**dict.fromkeys(recipe.FUNCTIONS, 6), "blind": 5, "repeat": 4, "wrong": 8}
    texts = {row.uid: row.messages for row in rows}
    pictures = {row.uid: row.images[0].path for row in rows}
    for row in rows:
        answer = row.messages[-1]["content"][0]["text"]
        question = row.messages[0]["content"][-1]["text"]
        if row.columns["truth"] == "blind":
            assert question == f"Say {answer}."
        alike = [
            uid for uid in texts if uid != row.uid and (texts[uid], pictures[uid]) == (row.messages, pictures[row.uid])
        ]
        assert alike or row.columns["truth"] != "repeat"


def test_a_seed_gives_the_same_pool(recipe, tmp_path):
    for name in ("a", "b"):
        recipe.write_pool(tmp_path / name, each=3, blind=2, repeats=2, wrong=4, seed=3)
    assert (tmp_path / "a" / "pool.jsonl").read_bytes() == (tmp_path / "b" / "pool.jsonl").read_bytes()
