"""A checkpoint from somebody else runs no code of theirs."""

import os
import shutil

import pytest
import torch

from vfl.errors import InputError
from vfl.train.restricted_loading import INSIST, restricted_loading

KINDS = ("image", "text", "image", "image")
FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth")


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


@pytest.fixture(scope="module")
def interrupted(qwen, data_of, run, tmp_path_factory):
    """The folder of a run that ended behind its first checkpoint."""
    out = tmp_path_factory.mktemp("interrupted") / "run"
    run(qwen, data_of(*KINDS), out, trainer={"save_steps": 1})
    (out / "report.html").unlink()
    shutil.rmtree(out / "checkpoints" / "checkpoint-2")
    return out


@pytest.fixture
def folder(interrupted, tmp_path):
    return shutil.copytree(interrupted, tmp_path / "run")


@pytest.mark.parametrize("name", FILES)
def test_a_planted_file_is_refused_and_nothing_of_it_runs(folder, qwen, data_of, run, tmp_path, name):
    torch.save({"state": Planted(tmp_path / "trace")}, folder / "checkpoints" / "checkpoint-1" / name)
    with pytest.raises(InputError, match="something other than tensors"):
        run(qwen, data_of(*KINDS), folder, {"resume": True}, trainer={"save_steps": 1})
    assert not (tmp_path / "trace").exists()


def test_trainings_own_arguments_are_never_read(folder, qwen, data_of, run, tmp_path):
    torch.save(Planted(tmp_path / "trace"), folder / "checkpoints" / "checkpoint-1" / "training_args.bin")
    run(qwen, data_of(*KINDS), folder, {"resume": True}, trainer={"save_steps": 1})
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("deepspeed", [False, True])
def test_who_asks_for_everything_is_refused_too(tmp_path, deepspeed):
    """DeepSpeed's checkpoint engine loads with weights_only=False."""
    torch.save(Planted(tmp_path / "trace"), tmp_path / "file.pt")
    with pytest.raises(InputError, match="could run code"), restricted_loading(tmp_path, deepspeed=deepspeed):
        torch.load(tmp_path / "file.pt", weights_only=False)
    assert not (tmp_path / "trace").exists()
    assert INSIST not in os.environ
    torch.load(tmp_path / "file.pt", weights_only=False)
    assert (tmp_path / "trace").exists()
