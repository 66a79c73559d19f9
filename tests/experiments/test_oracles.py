"""Policies that are told what rows are leave out what they say, and part the rest as they say."""

from collections import Counter

import pytest

from experiments.selection.oracles import ORACLES
from experiments.selection.table import NO_JUNK, ORACLE, WRONG_KEPT

POOL = [
    *({"id": f"ocr-{n}", "truth": "ocr"} for n in range(200)),
    *({"id": f"known-counting-{n}", "truth": "counting"} for n in range(40)),
    *({"id": f"ocr-{n}-wrong", "truth": "wrong"} for n in range(200, 250)),
    *({"id": f"counting-{n}-wrong", "truth": "wrong"} for n in range(40, 50)),
    *({"id": f"blind-{n}", "truth": "blind"} for n in range(50)),
    *({"id": f"repeat-{n}", "truth": "repeat"} for n in range(50)),
]
TRUTH = {row["id"]: row["truth"] for row in POOL}


@pytest.mark.parametrize("name", list(ORACLES))
def test_what_each_leaves_out(name):
    uids = ORACLES[name](POOL, 60, 0)
    assert len(uids) == len(set(uids)) == 60
    assert {TRUTH[uid] for uid in uids} == {"ocr", "counting"} | ({"wrong"} if name == WRONG_KEPT else set())
    assert ORACLES[name](POOL, 60, 1) != uids == ORACLES[name](POOL, 60, 0)


def test_functions_are_equal_or_as_in_the_data():
    of = {name: Counter("counting" in uid for uid in ORACLES[name](POOL, 60, 0)) for name in ORACLES}
    assert of[ORACLE][True] == of[WRONG_KEPT][True] == 30
    assert of[NO_JUNK][True] < 20


def test_a_rare_function_leaves_its_part_to_the_others():
    assert Counter(TRUTH[uid] for uid in ORACLES[ORACLE](POOL, 200, 0)) == {"counting": 40, "ocr": 160}
