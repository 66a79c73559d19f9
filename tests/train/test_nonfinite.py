"""A gradient that is not finite never reaches the weights, and never costs a checkpoint that was good."""

import pytest
import torch
import trained

from vfl.errors import InputError
from vfl.train.checkpoints import checkpoints

KINDS = ("image", "text", "image", "image")
# The first step makes the weights so large that the second one's forward pass overflows.
DIVERGING = {"learning_rate": 1e30, "max_steps": 4, "save_steps": 1, "save_total_limit": 1, "weight_decay": 0.0}


def finite(state):
    return all(torch.isfinite(tensor).all() for tensor in state.values())


def test_a_run_that_diverges_stops_and_keeps_the_last_finite_checkpoint(qwen, data_of, run, tmp_path):
    with pytest.raises(InputError, match=r"stopped at step 2.*learning_rate \(now 1e\+30\)"):
        run(qwen, data_of(*KINDS), tmp_path / "run", trainer=DIVERGING)
    (kept,) = checkpoints(tmp_path / "run" / "checkpoints")
    assert kept.name == "checkpoint-1"
    assert finite(trained.load_file(kept / "adapter_model.safetensors"))
    assert not (tmp_path / "run" / "adapter").exists()


def test_such_steps_can_be_left_out(qwen, data_of, run, tmp_path, caplog):
    run(qwen, data_of(*KINDS), tmp_path / "run", trainer=DIVERGING, on_nan="skip")
    assert caplog.text.count("is left out") == 3
    first = trained.load_file(tmp_path / "run" / "checkpoints" / "checkpoint-4" / "adapter_model.safetensors")
    assert finite(first)
    assert finite(trained.weights(tmp_path / "run"))


def test_finite_steps_are_untouched(qwen, data_of, run, tmp_path):
    run(qwen, data_of(*KINDS), tmp_path / "stop")
    run(qwen, data_of(*KINDS), tmp_path / "skip", on_nan="skip")
    assert trained.same(trained.weights(tmp_path / "stop"), trained.weights(tmp_path / "skip"))


def test_deepspeed_cannot_leave_steps_out(qwen, data_of, run, tmp_path):
    with pytest.raises(InputError, match="on_nan: skip"):
        run(qwen, data_of(*KINDS), tmp_path / "run", on_nan="skip", deepspeed="zero2")
