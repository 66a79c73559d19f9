"""Charts and words that all reports share."""

import math

import numpy as np
import pytest
from PIL import Image

from vfl.report.heat import heat_chart
from vfl.report.lines import Panel, Series, chart, thinned
from vfl.report.page import flat
from vfl.report.scales import ticks_of
from vfl.report.scatter import Point, scatter
from vfl.report.thumbnail import shrunk
from vfl.report.words import SHARE, fixed, shown, signed


def panel(at, value, low=None, high=None, unit=""):
    return Panel("a", "step", unit, [Series("a", at, value, low, high)])


def test_gaps_are_not_bridged():
    drawn = chart(panel(range(5), [0.0, 1.0, None, math.nan, 1.0]))
    assert drawn is not None
    assert drawn.lines[0].path.count("M") == 2
    assert chart(panel(range(2), [None, math.nan])) is None
    assert chart(panel([], [])) is None


def test_a_long_line_keeps_its_level():
    values = np.random.default_rng(0).normal(5.0, 1.0, 12_345)
    short = thinned(Series("a", range(len(values)), values.tolist()))
    assert len(short.at) <= 400
    assert np.mean([y for y in short.value if y is not None]) == pytest.approx(values.mean(), abs=0.01)


@pytest.mark.parametrize(("low", "high"), [(0, 564), (0.37, 0.41), (-3, 1e-4), (1e-9, 2e-9), (0, 1e6), (5, 5)])
def test_ticks_are_few_and_inside(low, high):
    ticks = ticks_of(low, high, 5)
    assert 1 <= len(ticks) <= 5
    assert all(low - 1e-12 <= tick <= high + 1e-12 for tick in ticks)


def test_intervals_end_where_there_are_none():
    drawn = chart(panel(range(5), [0.1] * 5, [0.0, 0.0, None, 0.0, 0.0], [0.2, 0.2, None, 0.2, 0.2], SHARE))
    assert len(drawn.lines[0].areas) == 2
    assert [tick.text for tick in drawn.y_ticks] == ["0", "50", "100"]
    assert drawn.lines[0].dots[0][2] == "a, step 0: 10.0\u00a0% (0.0\u00a0% to 20.0\u00a0%)"


def test_a_single_point_stands_in_the_middle():
    (line,) = chart(panel([7], [3.0])).lines
    assert line.dots[0][:2] == (50.0, 50.0)


def test_a_flat_heat_map_and_an_empty_one():
    assert heat_chart("a", [[None, math.nan]], ("row", [0]), ("column", [0, 1])) is None
    drawn = heat_chart("a", [[1.0, 1.0], [None, 1.0]], ("row", [0, 1]), ("column", [0, 1]))
    assert len({colour for _, _, colour, _ in drawn.cells}) == 2
    assert drawn.cells[2][3] == "row 1, column 0: none"


def test_nothing_is_written_as_a_negative_zero_or_none():
    assert [signed(v, 1) for v in (-0.04, 0.0, 0.04, -0.06, None)] == ["+0.0", "+0.0", "+0.0", "-0.1", "–"]
    assert [fixed(v, 1) for v in (-0.04, 0.0, None)] == ["0.0", "0.0", "–"]
    assert [shown(v, "") for v in (-0.0, 3.0, 0.12345, None)] == ["0", "3", "0.123", "–"]
    assert shown(-0.0001, SHARE) == "0.0\u00a0%"
    assert flat({"model": None, "a": {"b": [1, None]}}) == [("model", "–"), ("a.b", "1, –")]


@pytest.mark.parametrize(("size", "expected"), [((640, 320), (176, 88)), ((1000, 1), (176, 1)), ((60, 40), (60, 40))])
def test_thumbnails_keep_their_proportions_and_are_never_enlarged(size, expected):
    assert shrunk(Image.new("RGB", size)).size == expected


def test_a_scatter_stands_in_its_box_and_joins_its_front_like_stairs():
    points = [Point("a", (1e5, 1e5, 1e5), (20, 10, 30), "a"), Point("b", (4e5, 3e5, 5e5), (60, 40, 70), "b")]
    drawn = scatter("new", "parameters", points, [0, 1])
    a, b = drawn.marks
    assert all(0 < place < 100 for mark in drawn.marks for place in (*mark.x, *mark.y))
    assert b.x[1] < b.x[0] < b.x[2]
    assert b.y[2] < b.y[0] < b.y[1] < a.y[0], "more stands higher"
    assert drawn.front == f"M{a.x[0]} {a.y[0]} H{b.x[0]} V{b.y[0]}"
    assert {tick.text for tick in drawn.x_ticks} >= {"200k", "400k"}
    assert scatter("new", "parameters", []) is None
    assert scatter("new", "parameters", points[:1], [0]).front == ""
