"""The bench of metrics says what each takes, and refuses numbers that are not the same."""

import pytest

from bench.metrics import TOTAL, difference, table


def test_rounding_passes_and_anything_else_is_named():
    before = {"n": 3, "curves": {"value": [0.5, None, 1.0]}, "masked": [[1, 2]]}
    assert difference(before, before, "drop") == 0
    rounded = {**before, "curves": {"value": [0.5 + 1e-6, None, 1.0]}}
    assert difference(before, rounded, "drop") == pytest.approx(1e-6)
    for other in ({**before, "n": 4}, {**before, "curves": {"value": [0.6, None, 1.0]}}, {**before, "masked": [[1]]}):
        with pytest.raises(ValueError, match="drop/"):
            difference(before, other, "drop")
    speed = {"scalars": {"speedup": {"value": 1.0}}}
    assert difference(speed, {"scalars": {"speedup": {"value": 2.0}}}, "recommended") == 0, "a clock's"


def test_the_table_has_the_longest_first_and_ratios():
    results = {"drop": {"n": 1}, "mask": {"n": 1}}
    before = {"seconds": {"drop": 2.0, "mask": 6.0, TOTAL: 9.0}, "metrics": results}
    now = {"seconds": {"drop": 1.0, "mask": 2.0, TOTAL: 3.5}, "metrics": results}
    lines = table(before, now).splitlines()
    assert [line.split()[0] for line in lines] == ["CPU", "all,", "mask", "drop"]
    assert lines[2].split() == ["mask", "6.0", "2.0", "3.0", "0"]
    assert "before" not in table(None, now)
