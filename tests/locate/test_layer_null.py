"""A layer stands out where one is different, and at most as often as it may where all are alike."""

from itertools import permutations, product

import numpy as np
import pytest
from fake_records import Fake, records, redundant, sample, sharp
from scipy.stats import binom

from vfl.locate.layer_null import layer_null, maxima
from vfl.locate.layer_rule import ChoiceConfig
from vfl.locate.map_entries import build_entries
from vfl.proofs import LayerNull

FEW = ChoiceConfig(permutations=199)


def null_of(changed: np.ndarray, control: np.ndarray, groups: tuple[str, ...] = ()) -> LayerNull:
    found = layer_null(sample(changed, control, groups), FEW)
    assert found is not None
    return found


def test_permuted_maxima_are_those_of_all_orders() -> None:
    scores = np.array([[2.0, 0.0, 1.0], [1.0, 1.0, 1.0], [0.0, 3.0, 0.0], [1.0, 0.0, 0.0]])
    orders = [list(permutations(row)) for row in scores]
    exact = np.array([np.sum(rows, axis=0).max() for rows in product(*orders)])
    drawn = maxima(scores, 20_000, seed=0)
    for value in np.unique(exact):
        assert np.mean(drawn >= value) == pytest.approx(np.mean(exact >= value), abs=0.015)


@pytest.mark.parametrize("kind", ["controlled", "without control", "groups", "some controls"])
def test_layers_that_are_alike_seldom_stand_out(kind: str) -> None:
    rng = np.random.default_rng(0)
    tries, alarms = 200, 0
    names = tuple(f"g{n // 5}" for n in range(40)) if kind == "groups" else ()
    for _ in range(tries):
        # Pairs differ in how easily they change, and those of a group change together; layers don't differ.
        ease = np.repeat(rng.random((8, 1)), 5, axis=0) if kind == "groups" else rng.random((40, 1))
        changed, control = rng.random((40, 12)) < ease, (rng.random((40, 12)) < ease).astype(float)
        if kind == "groups":
            changed = np.repeat(changed[::5], 5, axis=0)
        if kind == "some controls":
            control[30:] = np.nan
        if kind == "without control":
            control[:] = np.nan
        alarms += null_of(changed, control, names).p <= 0.05
    assert alarms <= binom.ppf(0.99, tries, 0.05), "one time in a hundred by chance; the seed is fixed"


def test_a_planted_layer_stands_out_where_pairs_are_few() -> None:
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(40):
        noise, control = rng.random((30, 12)) < 0.1, rng.random((30, 12)) < 0.1
        noise[:, 7] |= rng.random(30) < 0.5
        null = null_of(noise, control)
        found += null.p <= 0.05 and null.layer == 7
    assert found >= 36


def test_a_layer_of_one_function_stands_out_and_one_of_several_does_not() -> None:
    table = records({"one": Fake(sharp(6), pairs=40), "any": Fake(redundant(4, 6), pairs=40)}, 12)
    entries = build_entries(table, 12, ChoiceConfig(permutations=199, bootstrap=0))
    one, several = entries["one"].layer_null, entries["any"].layer_null
    assert one is not None
    assert several is not None
    assert (one.layer, one.p) == (6, 1 / 200)
    assert 0 < one.threshold < one.largest
    assert one.in_words().startswith("layer 6 stands out")
    assert (several.p, several.largest) == (1, 0)
    assert several.in_words() == "no layer stands out from exchangeable layers (p = 1)"


def test_no_permutations_no_test() -> None:
    entries = build_entries(records({"one": Fake(sharp(6))}, 12), 12, ChoiceConfig(permutations=0, bootstrap=0))
    assert entries["one"].layer_null is None


def test_a_seed_gives_the_same_p() -> None:
    rng = np.random.default_rng(2)
    changed, control = rng.random((30, 8)) < 0.3, rng.random((30, 8)) < 0.2
    assert null_of(changed, control) == null_of(changed, control)
    assert null_of(changed, control).p > 0.05
