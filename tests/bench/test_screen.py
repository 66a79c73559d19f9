"""The bench of the screen counts both ways and says what was missed."""

from argparse import Namespace

from bench.screen import compared, told
from vfl.locate import screen_stage


def test_both_ways_are_counted_and_compared(monkeypatch):
    monkeypatch.setattr(screen_stage, "SCREENED", 8)
    result = compared("embedded", Namespace(pairs=9, seed=1, mode="single", functions=["counting"]))
    assert 0 < result["screened_flops"] < 2 * result["flops"]
    found = result["functions"]["counting"]
    assert found["layers"] == [[5], [5]]
    assert found["missed"] == []
    assert "order of functions: the same" in told(result)
    assert "counting: layers 5 in full, 5 screened; significant and skipped: none" in told(result)
