"""What is estimated of a pair and a row equals what is counted, on a small model of real classes."""

import runpy
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vfl.probes.make import make
from vfl.probes.pair import read_suite
from vfl.probes.style import STYLES

BENCH = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "estimate.py"))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_operations_are_those_that_are_counted(family, loaded, tmp_path):
    vlm = loaded(family)
    make(tmp_path / "pairs", ["counting"], pairs=1, seed=1, style=STYLES["micro"])
    (pair,) = read_suite(tmp_path / "pairs")
    for line in (BENCH["scored"](vlm, pair, 1e9), BENCH["located"](vlm, pair, 1e9, 1)):
        assert line.estimated == pytest.approx(line.measured, rel=0.03), line.what


def test_a_step_whose_backward_pass_ends_at_the_image_is_what_is_counted(loaded, tiny_folder, tmp_path):
    make(tmp_path / "pairs", ["counting"], pairs=1, seed=1, style=STYLES["micro"])
    pairs = read_suite(tmp_path / "pairs")
    vlm, model = loaded("qwen2_5_vl"), str(tiny_folder("qwen2_5_vl"))
    whole, _ = BENCH["trained"](vlm, model, pairs, tmp_path, 1, 1e9)
    (short,) = BENCH["trained"](vlm, model, pairs, tmp_path, 1, 1e9, short=True)
    assert short.measured < 0.9 * whole.measured
    for line in (whole, short):
        assert line.estimated == pytest.approx(line.measured, rel=0.05), line.what


def test_what_is_counted_is_pytorchs_count():
    """Convolutions, products and attention, forward and backward."""
    picture = torch.nn.Conv2d(3, 16, 4, 4)
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def step():
        layer(picture(torch.ones(2, 3, 16, 16)).flatten(2).mT).sum().backward()

    with FlopCounterMode(display=False) as counter:
        step()
    assert BENCH["count_flops"](step)[1] == counter.get_total_flops() > 0


def test_kernels_of_a_gpu_are_counted_by_what_they_compute():
    """Fused attention whose query heads share keys, and products in another type, which PyTorch's formulas refuse."""
    query, shared = (torch.empty(1, heads, 128, 64, device="meta", dtype=torch.bfloat16) for heads in (4, 2))
    attention = torch.ops.aten._scaled_dot_product_flash_attention
    counted = [BENCH["count_flops"](lambda keys=keys: attention(query, keys, keys))[1] for keys in (query, shared)]
    assert counted == [2 * 2 * 4 * 128 * 128 * 64] * 2
    left, right = (torch.empty(*shape, device="meta", dtype=torch.bfloat16) for shape in ((3, 5), (5, 7)))
    assert BENCH["count_flops"](lambda: torch.mm(left, right, out_dtype=torch.float32))[1] == 2 * 3 * 5 * 7
