"""The type that `auto` stands for: fast where the device has it, and never one that is only emulated."""

import logging

import pytest
import torch

from vfl.models.precision import best_dtype, dtype_of, has_bfloat16

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(params=[True, False])
def hardware(request, monkeypatch):
    """GPUs and processors with bfloat16 instructions, and without, on which torch emulates them."""
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or request.param
    )
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: request.param)
    return request.param


def test_what_auto_is(hardware):
    assert best_dtype(CPU) is torch.float32
    assert best_dtype(GPU) is (torch.bfloat16 if hardware else torch.float16)
    assert has_bfloat16(CPU) is has_bfloat16(GPU) is hardware


@pytest.mark.parametrize(("device", "instead"), [(CPU, "float32"), (GPU, "float16")])
def test_emulated_bfloat16_is_warned_of(hardware, caplog, device, instead):
    with caplog.at_level(logging.WARNING):
        assert dtype_of("bfloat16", device) is torch.bfloat16
    assert (instead in caplog.text) is not hardware
    caplog.clear()
    assert dtype_of("float32", device) is torch.float32
    assert dtype_of("auto", device) is best_dtype(device)
    assert not caplog.text
