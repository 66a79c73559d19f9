"""What is said before a long run: from its first batches, in a person's units."""

import re

import pytest
import score_rows
import torch

import vfl
from vfl.io.durations import duration
from vfl.select.score.pace import Pace, told
from vfl.select.score.run import score
from vfl.select.settings import ScoreConfig


def test_the_pace_is_of_tokens_and_leaves_the_first_batch_out():
    pace = Pace()
    pace.tokens_a_row = 50.0
    for tokens, seconds in ((100, 9.0), (200, 2.0), (100, 1.0), (100, 70.0)):
        assert pace.seconds_a_row() is None or len(pace.batches) == 3
        pace.add(tokens, seconds)
    assert pace.seconds_a_row() == pytest.approx(0.5)
    few = Pace()
    few.add(10, 1.0)
    few.tokens_a_row = 5.0
    assert few.seconds_a_row() is None
    assert few.seconds_a_row(ended=True) == pytest.approx(0.5)


def test_processes_share_the_time():
    line = told(0.5, 7_200_000, 8, torch.device("cpu"))
    assert line.startswith("7,200,000 rows are left: about 5.2 days at 2 rows a second and process by 8 processes.")
    assert re.search(r"Memory .*: [\d.]+ GB\.$", line)
    assert [duration(seconds) for seconds in (40, 600, 9_000, 10**6)] == ["40 s", "10 min", "2.5 h", "12 days"]


def test_it_is_said_while_most_rows_are_left(tmp_path, capfd):
    data = score_rows.write(tmp_path, score_rows.rows_of(tmp_path, 3))
    score(ScoreConfig(data=data, layers={"ocr": [8]}, batch_size=1, out=tmp_path / "s"), vlm=vfl.load())
    lines = capfd.readouterr().err.replace("\r", "\n").splitlines()
    (line,) = [line for line in lines if "rows are left" in line]
    assert int(line.split()[0]) >= 3
