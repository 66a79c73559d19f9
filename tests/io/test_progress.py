"""Progress: lines in a log, a bar on a terminal."""

import io
import sys

import pytest

from vfl.io import progress
from vfl.io.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("leave", [True, False])
def test_a_log_gets_whole_lines(monkeypatch, leave):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    assert list(progress_bar(range(5), "counting", unit="row", leave=leave)) == list(range(5))
    assert "\r" not in log.getvalue()
    lines = log.getvalue().splitlines()
    assert lines
    assert all(line.startswith("counting") for line in lines)
    if leave:
        assert "5/5" in lines[-1]


def test_a_line_says_how_far_it_is_now(monkeypatch):
    """Slow rows after fast ones: each line has the state of its moment."""
    log, now = io.StringIO(), [0.0]
    monkeypatch.setattr(sys, "stderr", log)
    bar = progress_bar(total=100, desc="counting")
    bar._time = lambda: now[0]
    bar.last_print_t = bar.start_t = 0.0
    for n in range(100):
        now[0] += 0.1 if n < 50 else 40.0
        bar.update()
    bar.close()
    shown = [int(line.split("/")[0].rsplit(" ", 1)[1]) for line in log.getvalue().splitlines()]
    assert shown == sorted(shown)
    assert set(range(51, 101)) <= set(shown)


def test_a_log_of_short_work_is_short(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    list(progress_bar(range(10_000), "counting"))
    assert len(log.getvalue().splitlines()) <= 2  # its begin and its end


def test_a_terminal_gets_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    list(progress_bar(range(5), "counting"))
    assert "\r" in terminal.getvalue()


def test_nothing_is_shown_where_none_is_wanted(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    list(progress_bar(range(5), "counting", disable=True))
    assert log.getvalue() == ""
