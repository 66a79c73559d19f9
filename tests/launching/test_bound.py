"""A command that is bound to its parent ends with it, however that ends, and is the plain command otherwise."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vfl.launching import bound

STARTS = """
import os, subprocess, sys
sleeps = "import os, pathlib, time; pathlib.Path({pid!r}).write_text(str(os.getpid())); time.sleep(600)"
subprocess.run([sys.executable, {bound!r}, str(os.getpid()), sys.executable, "-c", sleeps.format(pid={pid!r})])
"""


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of a parent's end on Linux alone")
def test_a_command_ends_with_its_killed_parent(tmp_path):
    file = tmp_path / "pid"
    script = STARTS.format(bound=bound.__file__, pid=str(file))
    parent = subprocess.Popen([sys.executable, "-c", script])
    try:
        wait(lambda: file.exists() and file.read_text())
        child = int(file.read_text())
        assert alive(child)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        wait(lambda: not alive(child))
    finally:
        parent.kill()


def test_otherwise_it_is_the_plain_command():
    command = [sys.executable, bound.__file__, str(os.getpid()), sys.executable, "-c", "import sys; sys.exit(7)"]
    assert subprocess.run(command, check=False).returncode == 7


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of a parent's end on Linux alone")
def test_it_does_not_start_for_a_parent_that_is_gone():
    command = [sys.executable, bound.__file__, "1", sys.executable, "-c", "print('started')"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (143, "")


def wait(until, seconds=60.0):
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.02)
