"""The growth of a measurement, at its smallest point: every metric has samples, and the whole is their sum."""

import re
from pathlib import Path

import pytest
import warm

pytestmark = pytest.mark.long

SCRIPT = Path(__file__).parents[2] / "bench" / "metrics_growth.py"


def test_all_is_the_sum_of_the_metrics(tmp_path: Path) -> None:
    done = warm.finished([str(SCRIPT), "--small", "--points", "vision tokens", "--out", str(tmp_path / "growth.png")])
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^(.+?)\s+([\d.]+)\s+([\d.]+)$", done.stdout, re.MULTILINE)
    work = {name.strip(): float(forwards) for name, forwards, _ in found}
    assert {ratio for *_, ratio in found} == {"1.00"}, "the first point is what others are compared with"
    whole = work.pop("all")
    assert len(work) == 5
    assert sum(work.values()) == pytest.approx(whole, abs=0.3)
    assert max(work, key=lambda name: work[name]) == "token_ablation"
    assert min(work.values()) > 0.5, "no metric leaves its samples out"
    assert (tmp_path / "growth.png").stat().st_size > 10_000
