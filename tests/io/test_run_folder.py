"""A run's folder is used by one run at a time, and nothing of another one is lost unasked."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml
from filelock import SoftFileLock

from vfl.errors import InputError
from vfl.io import lock_holder
from vfl.io.run_folder import LOCK, SETTINGS, RunFolder

HOLD = """
import sys, time
from pathlib import Path
from vfl.io.run_folder import RunFolder
with RunFolder(Path(sys.argv[1]), "result.json").held(overwrite=False):
    print("held", flush=True)
    time.sleep(600)
"""

# Stands still between the two steps in which a lock appears: its file is there, and says nothing yet.
STAND = """
import os, signal
from filelock import SoftFileLock
SoftFileLock._write_lock_info = lambda self, handle: os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "deep" / "out", "result.json", holds="a result")


def finish(folder):
    folder.save({"seed": 1})
    (folder.path / folder.result).write_text("{}")


def test_a_run_holds_its_folder_and_leaves_no_lock(folder):
    with folder.held(overwrite=False):
        assert (folder.path / LOCK).exists()
        finish(folder)
    assert sorted(path.name for path in folder.path.iterdir()) == ["result.json", SETTINGS]
    assert yaml.safe_load((folder.path / SETTINGS).read_text()) == {"seed": 1}


def test_a_run_that_is_refused_leaves_nothing(folder):
    with pytest.raises(InputError, match="a typo"), folder.held(overwrite=False):
        raise InputError("a typo")
    assert not folder.path.parent.exists()
    with folder.held(overwrite=False):
        pass  # and blocks nobody


def test_whose_folder_it_is(folder):
    folder.save({})
    with pytest.raises(InputError, match=r"an interrupted run\. Use --resume to go on with it, --overwrite"):
        folder.refuse_if_taken(overwrite=False)
    with pytest.raises(InputError, match=r"an interrupted run\. Use --overwrite"):
        folder.refuse_if_taken(overwrite=False, can_resume=False)
    folder.refuse_if_taken(overwrite=False, resume=True)
    finish(folder)
    with pytest.raises(InputError, match=r"holds a result\. Use --overwrite to replace it, or another --out"):
        folder.refuse_if_taken(overwrite=False)
    with pytest.raises(InputError, match="nothing to resume"):
        folder.refuse_if_taken(overwrite=False, resume=True)
    folder.refuse_if_taken(overwrite=True)


def test_nothing_to_resume(folder):
    with pytest.raises(InputError, match="holds no run to resume"):
        folder.refuse_if_taken(overwrite=False, resume=True)


@pytest.mark.parametrize("name", ["settings.json", "recipe.yaml", "parts/run.json"])
def test_a_run_of_the_version_before_is_refused_in_a_sentence(folder, name):
    (folder.path / name).parent.mkdir(parents=True)
    (folder.path / name).write_text("{}")
    with pytest.raises(InputError, match=r"a run of vfl 0\.1 .*can't go on with"):
        folder.refuse_if_taken(overwrite=False, resume=True)
    with pytest.raises(InputError, match="interrupted run"):
        folder.refuse_if_taken(overwrite=False)
    folder.clear([])
    folder.refuse_if_taken(overwrite=False)


def test_other_settings_are_named_at_every_level(folder):
    folder.save({"seed": 1, "lora": {"r": 4, "alpha": 4}, "device": None})
    folder.refuse_other_settings({"seed": 1, "lora": {"r": 4, "alpha": 4}, "device": "cpu"}, may_change={"device"})
    with pytest.raises(InputError, match=r"\(lora.alpha: 4 then, 8 now\)"):
        folder.refuse_other_settings({"seed": 1, "lora": {"r": 4, "alpha": 8}})


def test_clearing_takes_the_runs_files_alone(folder):
    finish(folder)
    (folder.path / "parts").mkdir()
    (folder.path / "parts" / "a.parquet").touch()
    (folder.path / "notes.txt").touch()
    folder.clear(["parts"])
    assert [path.name for path in folder.path.iterdir()] == ["notes.txt"]


def test_a_folder_that_is_exchanged_whole_never_takes_other_files_along(tmp_path):
    folder = RunFolder(tmp_path / "out", "manifest.json", whole=True)
    folder.path.mkdir()
    with folder.held(overwrite=False):
        assert not any(folder.path.iterdir()), "the lock lies beside"
        assert folder.lock_file.exists()
    (folder.path / "notes.txt").touch()
    with pytest.raises(InputError, match="other files"):
        folder.refuse_if_taken(overwrite=True)


@pytest.fixture
def holder(folder):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder.path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_with_who_holds_it(folder, holder):
    with pytest.raises(InputError, match=rf"being written by process {holder.pid} on {os.uname().nodename}"):
        folder.held(overwrite=True).__enter__()
    assert (folder.path / LOCK).exists()


def test_the_lock_of_a_dead_process_is_taken_over(folder, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (folder.path / LOCK).exists(), "it could not clean up"
    start = time.monotonic()
    with folder.held(overwrite=False):
        assert time.monotonic() - start < 60
        assert str(os.getpid()) in (folder.path / LOCK).read_text()


def test_killed_while_it_took_over_a_dead_process_s_lock_its_own_is_taken_over(folder, holder):
    """It left a mark that names nobody, and beside it the dead one's lock."""
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    lock = folder.path / LOCK
    lock.rename(lock.with_name(f"{LOCK}.break.77.0123456789abcdef"))
    lock.write_text("filelock/break\n77\n")
    folder.save({})
    with folder.held(overwrite=False, resume=True):
        assert str(os.getpid()) in lock.read_text()
    assert [path.name for path in folder.path.iterdir()] == [SETTINGS]


def test_an_empty_lock_is_taken_over_once_its_process_is_gone(folder, monkeypatch):
    monkeypatch.setattr(lock_holder, "UNSURE", 0.3)
    lock = folder.path / LOCK
    process = subprocess.Popen([sys.executable, "-c", STAND + HOLD, str(folder.path)])
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    with pytest.raises(InputError, match="being written by another process"):
        folder.look(overwrite=False)
    assert lock.read_bytes() == b"", "it may go on at any time"
    process.kill()
    process.wait()
    # Of several that find it, one takes it over.
    locks = [SoftFileLock(lock, thread_local=False) for _ in range(4)]
    with ThreadPoolExecutor(len(locks)) as pool:
        taken = list(pool.map(lock_holder.take, locks))
    assert sorted(taken) == [False, False, False, True]
    assert str(os.getpid()) in lock.read_text()
    locks[taken.index(True)].release()
    with folder.held(overwrite=False):
        assert [path.name for path in folder.path.iterdir()] == [LOCK]


def test_a_run_of_an_earlier_version_did_without_what_came_later(folder):
    folder.save({"data": {"train": "a"}})
    folder.refuse_other_settings({"data": {"train": "a", "streaming": False}, "fsdp": False})
    with pytest.raises(InputError, match=r"data\.streaming: False then, True now"):
        folder.refuse_other_settings({"data": {"train": "a", "streaming": True}, "fsdp": False})


def test_settings_of_a_json_kind_are_yaml(folder):
    folder.save(json.loads('{"a": [1, 2], "b": {"c": null}}'))
    assert yaml.safe_load((folder.path / SETTINGS).read_text()) == {"a": [1, 2], "b": {"c": None}}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("removals", range(5))
def test_killed_while_it_clears_a_folder_says_whose_the_rest_is(folder, monkeypatch, removals):
    """Results without settings would be taken for those of the next run, whatever its settings."""
    finish(folder)
    for name in ("a", "b"):
        (folder.path / f"{name}.parquet").touch()
    unlink, done = Path.unlink, 0

    def counted(path, missing_ok=False):
        nonlocal done
        if done == removals:
            raise Killed
        done += path.exists()
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patched, suppress(Killed):  # at the last moment, all was removed before
        patched.setattr(Path, "unlink", counted)
        folder.clear(["*.parquet"])
    left = [path.name for path in folder.path.iterdir()]
    assert SETTINGS in left or not left


def test_what_a_killed_process_was_writing_is_removed_and_nothing_else(folder):
    folder.save({})
    ours = folder.path / "figures" / ".curves.png.77.tmp"
    others = folder.path / "run-1" / ".report.html.78.tmp"
    named = folder.path / ".notes.tmp"
    for path in (ours, others, named):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (others.parent / SETTINGS).touch()
    with folder.held(overwrite=False, resume=True):
        assert (ours.exists(), others.exists(), named.exists()) == (False, True, True)


@pytest.mark.parametrize("before", [True, False])
def test_killed_in_the_moment_of_the_exchange_a_folder_comes_back(tmp_path, before):
    folder = RunFolder(tmp_path / "out", "manifest.json", holds="a subset", whole=True)
    aside, half, other = (tmp_path / name for name in (".out.77.old", ".out.77.tmp", ".out-2.77.tmp"))
    for path in (half, other, *([aside] if before else [])):
        path.mkdir()
    if before:
        (aside / "manifest.json").write_text("before")
        with pytest.raises(InputError, match="holds a subset"):
            folder.held(overwrite=False).__enter__()
        assert (folder.path / "manifest.json").read_text() == "before"
    else:
        folder.look(overwrite=False)
        assert not folder.path.exists()
    assert not half.exists()
    assert not aside.exists()
    assert other.exists()


@contextmanager
def full_disk():
    """Inside, no file of this process grows; pytest's own report may be one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_lock_of_a_dead_process_is_not_blamed_for_a_full_disk(folder, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with full_disk(), pytest.raises(InputError, match="is full"):
        folder.look(overwrite=True)


def test_looking_says_who_works_there(folder, holder):
    folder.save({})
    with pytest.raises(InputError, match=f"being written by process {holder.pid}"):
        folder.look(overwrite=False)


@pytest.mark.parametrize(
    ("state", "can_resume", "said"),
    [
        ("none", True, r"Nothing is lost: make room and give the same command again, or another --out folder\.$"),
        ("started", True, r"What was finished is kept: make room and go on with --resume, or give another"),
        ("started", False, r"make room and run it again with --overwrite, or give another"),
        ("finished", True, r"Nothing is lost"),
    ],
)
def test_how_to_go_on_after_a_full_disk_depends_on_what_is_there(folder, state, can_resume, said):
    if state != "none":
        folder.save({})
    if state == "finished":
        finish(folder)
    said = rf"The disk of .*out is full\. .*{said}"
    with pytest.raises(InputError, match=said), folder.explained(can_resume=can_resume):
        raise OSError(28, "No space left on device")


def test_a_run_of_earlier_names_goes_on(folder):
    folder.save({"evaluation": {"batch": 8}, "attention": "sdpa", "seed": 1})
    now = {"evaluation": {"batch_size": 8}, "attn_implementation": "sdpa", "seed": 1}
    folder.refuse_other_settings(now)
    with pytest.raises(InputError, match=r"evaluation\.batch_size: 8 then, 4 now"):
        folder.refuse_other_settings(now | {"evaluation": {"batch_size": 4}})
