"""The growth of a sweep, at a tiny size: the contenders agree, and groups do less work than a pair at a time."""

import re
from pathlib import Path

import pytest
import warm

pytestmark = pytest.mark.long

SCRIPT = Path(__file__).parents[2] / "bench" / "growth.py"


def test_groups_do_less_work_than_any_other(tmp_path: Path) -> None:
    done = warm.finished([str(SCRIPT), "--small", "--points", "vision tokens", "--out", str(tmp_path / "growth.png")])
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^(.+?)\s+([\d.]+)\s+(\d+)$", done.stdout.replace(",", ""), re.MULTILINE)
    rows = {name.strip(): (float(work), int(kernels)) for name, work, kernels in found}
    work = {name: of[0] for name, of in rows.items()}
    kernels = {name: of[1] for name, of in rows.items()}
    assert len(rows) == 5
    groups = "this engine groups"
    assert min(work, key=work.get) == min(kernels, key=kernels.get) == groups
    assert work["cached prefix a pair at a time"] > 2.5 * work[groups]
    assert (tmp_path / "growth.png").stat().st_size > 10_000
