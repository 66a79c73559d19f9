"""What is said after the first kept pair: how long the rest takes, and how to shorten it."""

from types import SimpleNamespace

import pytest
import torch

from vfl.locate.config import LocateConfig
from vfl.locate.forecast import Forecast, seconds_left


def forecast(tmp_path, processor=None, pairs=101, processes=1, **settings):
    vlm = SimpleNamespace(device=torch.device("cpu"), num_layers=28, processor=processor)
    return Forecast(vlm, LocateConfig(out=tmp_path, **settings), pairs=pairs, blocks=81, processes=processes)


def test_a_visit_takes_as_long_as_it_has_blocks():
    assert seconds_left(3.0, pairs=10, blocks=30, further=0) == (30.0, 30.0)
    least, most = seconds_left(3.0, pairs=10, blocks=30, further=20)
    assert least == 30.0
    assert most - least == pytest.approx(11 * 3.0 * 20 / 30), "the first pair may be asked with further blocks too"


def test_it_is_said_once_after_the_first_kept_pair(tmp_path):
    short = forecast(tmp_path, mode="window")
    assert short.after(0.1, kept=False) is None
    line = short.after(6.0, kept=True)
    assert line.startswith("99 more pairs: about 9.9 min (6 s for the first kept pair; those answered wrongly")
    assert "GB." in line
    assert "To shorten" not in line
    assert short.after(6.0, kept=True) is None
    assert forecast(tmp_path, pairs=1).after(6.0, kept=True) is None, "nothing is left"


def test_processes_share_the_time(tmp_path):
    line = forecast(tmp_path, mode="window", pairs=104, processes=4).after(6.0, kept=True)
    assert line.startswith("100 more pairs by 4 processes: about 2.5 min (6 s")


def test_a_long_run_says_what_to_change(tmp_path):
    line = forecast(tmp_path).after(60.0, kept=True)
    assert line.startswith(
        "100 more pairs: about 1.7 h for single layers and windows, up to 3.4 h with the wider blocks"
    )
    assert "To shorten it: fewer --pairs, --mode single (a third" in line
    assert "a lower --max-new-tokens if answers ramble, smaller pictures (--size), --group 3 (pairs" in line
    assert "--group" not in forecast(tmp_path, group=4).after(60.0, kept=True)

    images = SimpleNamespace(model_input_names=["image_grid_thw"], size={"shortest_edge": 1, "longest_edge": 9})
    own = forecast(tmp_path, images, probes="my-pairs", mode="single", unfiltered=True).after(60.0, kept=True)
    assert "fewer pairs in the suite, a lower" in own
    assert "smaller pictures (--max-pixels)" in own
    assert "mode single" not in own
    assert "--group" not in own
    assert "wrongly" not in own
