"""Rates, intervals and effects against their definitions."""

import numpy as np
import pyarrow.compute as pc
import pytest
from fake_records import Fake, additive, records, sharp

from vfl.errors import InputError
from vfl.locate.curves import curves, outcomes

L = 8


def test_curves_are_the_means_of_the_records() -> None:
    table = records({"ocr": Fake(sharp(5, 0.6), lambda a, b: 0.3 if a == 1 else 0.0, pairs=40, accuracy=0.8)}, L)
    data = outcomes(table, "ocr", L)
    got = curves(data)
    assert (data.pairs, data.kept, data.accuracy) == (40, 32, 0.8)
    rows = [row for row in table.to_pylist() if row["first"] == row["last"] and row["swap"] != "none"]
    for k in range(L):
        kept = [row for row in rows if row["first"] == k and row["kept"]]
        source = [row for row in kept if row["swap"] == "source"]
        assert got.changed[k] == pytest.approx(np.mean([row["changed"] for row in source]))
        assert got.followed[k] == pytest.approx(np.mean([row["followed_source"] for row in source]))
        assert got.control is not None
        assert got.control[k] == pytest.approx(np.mean([row["changed"] for row in kept if row["swap"] == "control"]))
        everyone = [row["changed"] for row in rows if row["first"] == k and row["swap"] == "source"]
        assert data.unfiltered[k] == pytest.approx(np.mean(everyone))
    assert (got.ci_low <= got.changed).all()
    assert (got.changed <= got.ci_high).all()


def test_effect_is_the_drop_of_the_log_odds() -> None:
    # In the fake records the answer loses 2 and the source's answer gains 2 nats at full strength.
    effect = curves(outcomes(records({"ocr": Fake(sharp(5, 0.75))}, L), "ocr", L)).effect
    assert effect is not None
    assert effect == pytest.approx([0, 0, 0, 0, 0, 4 * 0.75, 0, 0], abs=1e-5)


def test_order_of_the_records_does_not_matter() -> None:
    table = records({"ocr": Fake(additive(2, 5, 0.2), pairs=30)}, L)
    shuffled = table.take(np.random.default_rng(1).permutation(table.num_rows))
    first, second = outcomes(table, "ocr", L), outcomes(shuffled, "ocr", L)
    for name in ("changed", "followed", "control", "effect", "unfiltered"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.pair_ids == second.pair_ids
    assert first.blocks == second.blocks


def test_without_control_images_there_is_no_control_curve() -> None:
    assert curves(outcomes(records({"ocr": Fake(sharp(5), control=False)}, L), "ocr", L)).control is None


def test_what_is_not_there_is_said() -> None:
    table = records({"ocr": Fake(sharp(5), pairs=5)}, L)
    with pytest.raises(InputError, match="nothing for function 'counting'"):
        outcomes(table, "counting", L)
    with pytest.raises(InputError, match="the model has 6 layers"):
        outcomes(table, "ocr", 6)
    lost = (pc.field("pair_id") == "ocr-0002") & (pc.field("first") == 3) & (pc.field("swap") == "source")
    unfinished = table.filter(~lost)
    with pytest.raises(InputError, match=r"ocr-0002 of ocr has no record of layer 3 swapped.*--resume"):
        outcomes(unfinished, "ocr", L)
    with pytest.raises(InputError, match=r"No pair of ocr was kept.*none of 5 pairs"):
        outcomes(records({"ocr": Fake(sharp(5), pairs=5, accuracy=0)}, L), "ocr", L)
