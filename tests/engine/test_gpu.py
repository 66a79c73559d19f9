"""On a CUDA device: the same numbers as on the CPU, and a real out-of-memory error survived. Run with `-m gpu`."""

import logging

import pytest
import tiny
import torch

import vfl
from vfl.engine.image_cache import prefill
from vfl.engine.plan import Plan
from vfl.engine.sweep import sweep

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def swept(vlm):
    target, source = (vlm.ask("how many cats are there", tiny.picture(seed=seed)) for seed in (1, 2))
    image_cache = prefill(vlm, source)
    plans = [Plan.own(), *(Plan.swap([layer], image_cache) for layer in range(vlm.num_layers)), Plan.hide([1])]
    return sweep(vlm, target, plans, answers=["three cats"], max_new_tokens=3)


@pytest.mark.parametrize("family", sorted(tiny.FAMILIES))
def test_cuda_equals_cpu(tiny_folder, family):
    on_cpu, on_cuda = (swept(vfl.load(tiny_folder(family), dtype="float64", device=d)) for d in ("cpu", "cuda"))
    # Transformers works out rotations in float32 whatever the model's type.
    torch.testing.assert_close(on_cuda.logits.cpu(), on_cpu.logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(on_cuda.answer_logprobs.cpu(), on_cpu.answer_logprobs, rtol=0, atol=1e-4)
    assert on_cuda.token_ids == on_cpu.token_ids


def test_half_precision_is_the_default_where_the_device_has_it(tiny_folder):
    vlm = vfl.load(tiny_folder("qwen2_5_vl"))
    expected = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    assert (vlm.dtype, vlm.device.type) == (expected, "cuda")
    assert torch.isfinite(swept(vlm).logits).all()


def test_a_real_out_of_memory_error_halves_the_batch(tiny_folder, caplog):
    vlm = vfl.load(tiny_folder("llava"), device="cuda")
    target, source = (vlm.ask("how many cats are there", tiny.picture(seed=seed)) for seed in (1, 2))
    plans = [Plan.swap([0], prefill(vlm, source))] * 512
    vlm.row_limit = 512
    sweep(vlm, target, plans)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 2**22) / total)
    try:
        with caplog.at_level(logging.WARNING):
            logits = sweep(vlm, target, plans).logits
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory" in caplog.text
    assert logits.shape[0] == 512
