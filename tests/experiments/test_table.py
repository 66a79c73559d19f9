"""Differences are paired: what seeds and questions have in common does not widen their intervals."""

import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[2]))

from experiments.selection.table import cell_of, difference


def run(policy, seed, right, budget=0.2):
    digits = "".join(str(int(answer)) for answer in right)
    seconds = {"select": 1.0, "train": 10.0, "score": 4.0}
    names = ["counting"] * (len(right) // 2) + ["ocr"] * (len(right) - len(right) // 2)
    return {"setting": "s", "policy": policy, "budget": budget, "seed": seed, "rows": 7, "right": digits,
            "functions": names, "seconds": seconds, "base": 0.1}  # fmt: skip


def test_equal_answers_differ_by_nothing_however_seeds_differ():
    rng = np.random.default_rng(0)
    own = (rng.random((5, 80)) < rng.random((5, 1))).astype(int)
    assert difference(own, own) == (0.0, 0.0, 0.0)
    better = np.maximum(own, np.arange(80) < 8)
    value, low, high = difference(better, own)
    assert 0 < low < value < high


def test_cells_pair_the_seeds_that_both_have():
    right = {"balanced": [1, 1, 1, 0], "random": [1, 0, 0, 0]}
    results = [run(name, seed, right[name]) for name in right for seed in range(3 if name == "random" else 2)]
    results += [run("all rows", 0, [1, 1, 1, 1], 1.0)]
    cell = cell_of(results, "s", "balanced", 0.2)
    assert cell["accuracy"] == 0.75
    assert cell["functions"] == {"counting": 1.0, "ocr": 0.5}
    assert cell["against_random"][0] == 0.5
    assert cell["of_all"] == 0.75
    assert cell["cost"] == (1 / 0.75) * 15 / 10
    assert cell_of(results, "s", "top", 0.2) is None


def test_what_is_trained_longer_is_compared_with_what_is_trained_as_long():
    right = {"balanced, steps of all": [1, 1, 1, 1], "random, steps of all": [1, 1, 1, 0], "random": [1, 0, 0, 0]}
    results = [run(name, 0, answers) for name, answers in right.items()]
    assert cell_of(results, "s", "balanced, steps of all", 0.2)["against_random"][0] == 0.25
    assert "against_random" not in cell_of(results, "s", "random, steps of all", 0.2)
