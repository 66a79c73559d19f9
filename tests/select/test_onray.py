"""The same scores from a Ray cluster, also when one of its workers dies."""

import os
import signal
import threading
import time

import psutil
import pytest
import score_rows

from vfl.errors import InputError
from vfl.select.score.run import score
from vfl.select.settings import RayConfig, ScoreConfig

pytestmark = pytest.mark.slow


def scorers():
    """Processes of the actors on this machine."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if line.startswith("ray::") and "PartScorer" in line and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def test_a_local_cluster_of_two_workers_of_which_one_is_killed(tmp_path):
    pytest.importorskip("ray")
    data = score_rows.write(tmp_path, score_rows.rows_of(tmp_path, 10))

    def settings(name, **more):
        return ScoreConfig(data=data, layers=score_rows.LAYERS, out=tmp_path / name, shard_rows=4, batch_size=2, **more)

    whole = score(settings("whole"), progress=False)
    scores = tmp_path / "scores"
    killed = []

    def kill_one():
        deadline = time.monotonic() + 500
        while time.monotonic() < deadline:
            if len(list((scores / "parts").glob("part-*"))) >= 2 and (alive := scorers()):
                os.kill(alive[0].pid, signal.SIGKILL)
                killed.append(alive[0].pid)
                return
            time.sleep(0.05)

    killer = threading.Thread(target=kill_one)
    killer.start()
    score(settings("scores", ray=RayConfig(workers=2)), progress=False)
    killer.join()
    assert killed
    score_rows.assert_alike(score_rows.table(scores), score_rows.table(whole))
    assert {path.name for path in scores.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


def test_a_bad_row_stops_the_run_by_its_name(tmp_path):
    pytest.importorskip("ray")
    rows = score_rows.rows_of(tmp_path, 1)
    image = tmp_path / rows[1]["image"]
    image.write_bytes(image.read_bytes()[:-40])
    data = score_rows.write(tmp_path, rows)
    settings = ScoreConfig(
        data=data, layers=score_rows.LAYERS, out=tmp_path / "s", shard_rows=2, ray=RayConfig(workers=1)
    )
    with pytest.raises(InputError, match=f"row 2 .*{rows[1]['id']}"):
        score(settings, progress=False)


def test_what_does_not_fit_on_the_cluster_is_said(tmp_path):
    pytest.importorskip("ray")
    data = score_rows.write(tmp_path, score_rows.rows_of(tmp_path, 1))
    settings = ScoreConfig(data=data, layers=score_rows.LAYERS, out=tmp_path / "s", ray=RayConfig(workers=2, gpus=1))
    with pytest.raises(InputError, match="GPU"):
        score(settings, progress=False)
