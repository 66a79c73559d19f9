"""Scoring's memory does not grow with the data: the model, one part's rows and a few open images."""

import subprocess
import sys
from pathlib import Path

import pytest
import score_rows

RUN = """
import sys
from vfl.select.score.run import main

code = main(sys.argv[1:])
with open("/proc/self/status") as lines:
    print(code, next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_peak_memory_of_500_and_5000_rows_is_within_10_percent(tmp_path):
    made = score_rows.rows_of(tmp_path, 25)
    peaks = []
    for number in (500, 5_000):
        rows = [made[i % len(made)] | {"id": str(i), "note": "word " * 200} for i in range(number)]
        data = score_rows.write(tmp_path, rows)
        settings = [
            f"data={data}",
            f"out={tmp_path / str(number)}",
            "layers.ocr=[8]",
            "batch_size=32",
            "shard_rows=128",
        ]
        done = subprocess.run([sys.executable, "-c", RUN, *settings], capture_output=True, text=True, check=False)
        code, peak = map(int, done.stdout.split())
        assert code == 0, done.stderr
        peaks.append(peak)
    assert peaks[1] <= 1.1 * peaks[0], peaks
