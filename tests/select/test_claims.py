"""One owner at a time; what a dead one held is taken over, once."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

from vfl.select.shards.claims import Claims


def test_one_holds_and_the_next_gets_it_after(tmp_path):
    one, other = Claims(tmp_path / "claims", 60), Claims(tmp_path / "claims", 60)
    with one.hold("a") as first, other.hold("a") as second, other.hold("b") as third:
        assert (first, second, third) == (True, False, True)
    with other.hold("a") as held:
        assert held
    assert not list((tmp_path / "claims").iterdir())


def test_a_claim_ends_with_an_error(tmp_path):
    claims = Claims(tmp_path, 60)
    try:
        with claims.hold("a"):
            raise RuntimeError
    except RuntimeError:
        pass
    assert not list(tmp_path.iterdir())


def owned_by(folder, pid, started, name="a.0"):
    folder.mkdir(exist_ok=True)
    told = {"host": socket.gethostname(), "pid": pid, "started": started}
    (folder / name).write_text(json.dumps(told))
    return folder


def test_a_dead_process_s_claim_is_taken_over_at_once(tmp_path):
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    folder = owned_by(tmp_path / "claims", done.pid, time.time())
    with Claims(folder, 3600).hold("a") as held:
        assert held
    assert not list(folder.iterdir())


def test_a_process_number_that_was_given_away_is_no_sign_of_life(tmp_path):
    folder = owned_by(tmp_path / "claims", os.getpid(), 12345.0)
    with Claims(folder, 3600).hold("a") as held:
        assert held


def test_only_one_takes_a_dead_claim_over(tmp_path):
    folder = owned_by(tmp_path / "claims", os.getpid(), 12345.0)
    start, end = threading.Barrier(8), threading.Barrier(8)
    found = []

    def run():
        claims = Claims(folder, 3600)
        start.wait()
        with claims.hold("a") as held:
            found.append(held)
            end.wait()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False] * 7 + [True]


def elsewhere(folder, text):
    folder.mkdir(exist_ok=True)
    (folder / "a.0").write_text(text)
    return folder


def test_another_machine_s_claim_lives_as_long_as_it_is_touched(tmp_path):
    folder = elsewhere(tmp_path / "claims", json.dumps({"host": "elsewhere", "pid": 1, "started": 0.0}))
    claims = Claims(folder, 0.2)
    for count in range(10):
        os.utime(folder / "a.0", ns=(count, count))  # whatever its clock says
        with claims.hold("a") as held:
            assert not held
        time.sleep(0.05)
    time.sleep(0.25)
    with claims.hold("a") as held:
        assert held


def test_a_claim_whose_owner_died_before_writing_expires(tmp_path):
    folder = elsewhere(tmp_path / "claims", "")
    claims = Claims(folder, 0.1)
    with claims.hold("a") as held:
        assert not held
    time.sleep(0.15)
    with claims.hold("a") as held:
        assert held


def test_an_owner_gives_signs_of_life(tmp_path):
    with Claims(tmp_path, 0.1).hold("a"):
        (file,) = tmp_path.iterdir()
        before = file.stat().st_mtime_ns
        deadline = time.monotonic() + 30
        while file.stat().st_mtime_ns == before and time.monotonic() < deadline:
            time.sleep(0.02)
        assert file.stat().st_mtime_ns > before
