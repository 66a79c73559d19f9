"""The order of functions by depth: centres, intervals, and Kendall's tau with the published order."""

from pathlib import Path

import numpy as np
import pytest

import vfl
from experiments.order.order import centre, markdown, order_of, tau_with_published


def test_the_centre_is_the_weighted_mean_layer_and_nothing_below_zero_counts() -> None:
    assert centre(np.array([0.0, 0, 1, 0, 0])) == pytest.approx(0.5)
    assert centre(np.array([0.5, 0, 0, 0, 0.5])) == pytest.approx(0.5)
    assert centre(np.array([-1.0, 0, 0, 0, 0.3])) == pytest.approx(1.0)
    assert np.isnan(centre(np.zeros(4)))
    assert centre(np.array([[1.0, 0], [0, 1]])).tolist() == [0, 1]


def test_tau_is_one_in_the_published_order_and_minus_one_in_the_other() -> None:
    depths = {"recognition": 0.1, "counting": 0.4, "grounding": 0.6, "ocr": 0.9}
    assert tau_with_published(depths) == pytest.approx(1)
    assert tau_with_published({name: -depth for name, depth in depths.items()}) == pytest.approx(-1)
    assert tau_with_published({"counting": 0.2, "ocr": 0.1, "recognition": 0.0}) == pytest.approx(1 / 3)


def test_the_planted_model_shows_the_order_in_which_it_was_planted(tmp_path: Path) -> None:
    names = ["counting", "grounding", "ocr"]  # single layers; recognition's stand in for each other
    vfl.locate("embedded", functions=names, pairs=3, out=tmp_path / "map", mode="single")
    order = order_of(tmp_path / "map")
    assert order.order == ("counting", "grounding", "ocr")
    assert [order.depths[name].peak for name in order.order] == [5, 7, 8]
    assert (order.tau, order.tau_low) == (pytest.approx(1), pytest.approx(1))
    assert "| counting < grounding < ocr | +1.00" in markdown([order])
