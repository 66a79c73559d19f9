"""A finished run is lost to no failure of the one that was to replace it."""

import os
import shutil

import pytest
import torch

from vfl.errors import InputError
from vfl.train.previous import ASIDE, PreviousRun
from vfl.train.trainers import LayerSFTTrainer

KINDS = ("image", "text")
RESULTS = ("report.html", "adapter", "metrics.jsonl")


def content(out):
    """Every result by name, with its bytes; the rows and what refused them are no results."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.relative_to(out).parts[0] not in {"data", ".lock"}
    }


@pytest.fixture(scope="module")
def finished(qwen, data_of, run, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    run(qwen, data_of(*KINDS), out)
    return out


@pytest.fixture
def out(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    "trainer",
    [
        {"optim": "adam_of_the_moon"},
        {"lr_scheduler_type": "cosine_of_the_moon"},
        {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 5.0}},
        {"learning_rate": 1e30, "max_steps": 4, "weight_decay": 0.0},
    ],
    ids=["optimizer", "scheduler", "scheduler's arguments", "diverges"],
)
def test_a_recipe_that_fails_costs_no_run(out, qwen, data_of, run, trainer):
    before = content(out)
    with pytest.raises(InputError):
        run(qwen, data_of(*KINDS), out, how={"overwrite": True}, trainer=trainer)
    assert content(out) == before


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), KeyboardInterrupt(), OSError(28, "")])
def test_nor_does_a_failure_of_the_first_step(out, qwen, data_of, run, monkeypatch, error):
    before = content(out)

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(LayerSFTTrainer, "training_step", fail)
    with pytest.raises((InputError, KeyboardInterrupt)):
        run(qwen, data_of(*KINDS), out, how={"overwrite": True}, seed=3)
    assert content(out) == before


def test_behind_its_first_checkpoint_the_new_run_stays(out, qwen, data_of, run):
    diverging = {"learning_rate": 1e30, "max_steps": 4, "save_steps": 1, "weight_decay": 0.0}
    with pytest.raises(InputError, match="stopped at step 2"):
        run(qwen, data_of(*KINDS), out, how={"overwrite": True}, trainer=diverging)
    assert not (out / ASIDE).exists()
    assert not (out / "adapter").exists()
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["checkpoint-1"]


def previous_in(folder):
    """Three results of an old run."""
    folder.mkdir()
    (folder / "settings.yaml").write_text("old")
    (folder / "report.html").write_text("old")
    (folder / "metrics.jsonl").write_text("old")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "weights").write_text("old")
    return PreviousRun(folder, RESULTS)


@pytest.mark.parametrize("moves", range(9))
def test_killed_between_any_two_moves_the_old_run_comes_back(tmp_path, monkeypatch, moves):
    """Killed at any rename while it is moved aside or put back, and settled by the next process."""
    previous = previous_in(tmp_path / "run")
    before = content(previous.out)
    replace, done = os.replace, 0

    class Killed(BaseException):
        pass

    def counted(*paths):
        nonlocal done
        if done == moves:
            raise Killed
        done += 1
        replace(*paths)

    with monkeypatch.context() as patched:
        patched.setattr("vfl.train.previous.os.replace", counted)
        try:
            previous.move_aside()
            (previous.out / "settings.yaml").write_text("new")
            (previous.out / "metrics.jsonl").write_text("new")
            previous.put_back()
        except Killed:
            pass
    PreviousRun(previous.out, RESULTS).settle(resume=False)
    assert content(previous.out) == before
    assert not previous.aside.exists()


def test_a_checkpoint_that_is_not_what_its_name_says_is_refused(out, qwen, data_of, run):
    (out / "report.html").unlink()
    (out / "checkpoints" / "checkpoint-2").rename(out / "checkpoints" / "checkpoint-3")
    with pytest.raises(InputError, match=r"begin at step 3.*began at step 2"):
        run(qwen, data_of(*KINDS), out, how={"resume": True})


def test_an_empty_folder_of_checkpoints_is_no_run_before(tmp_path):
    """Trainer makes it; a run that failed before its first checkpoint would else lose its settings with it."""
    previous = PreviousRun(tmp_path, (*RESULTS, "checkpoints"))
    (tmp_path / "checkpoints").mkdir()
    previous.move_aside()
    (tmp_path / "settings.yaml").write_text("new")
    previous.put_back()
    assert (tmp_path / "settings.yaml").read_text() == "new"
