"""Weights in few bits: which are, how, and that they can be located on and trained."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import trained
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from safetensors import safe_open
from torch import nn

from vfl.errors import InputError
from vfl.loading.load import load
from vfl.models.shape import shape_of
from vfl.models.vlm import VLM
from vfl.train.run import train


def matrices(vlm: VLM, kind: type[nn.Module]) -> set[str]:
    """Names of the modules of exactly this class."""
    return {name for name, module in vlm.model.named_modules() if type(module) is kind}


def in_layers(vlm: VLM) -> set[str]:
    within = f"{vlm.parts.decoder_name}.layers."
    return {
        name for name, module in vlm.model.named_modules() if name.startswith(within) and isinstance(module, nn.Linear)
    }


@pytest.fixture(scope="module")
def four_bits() -> VLM:
    return load("embedded", quantize="4bit", dtype="float32", device="cpu")


def test_the_decoder_layers_alone_are_in_four_bits_and_compute_in_the_models_type(four_bits: VLM) -> None:
    assert matrices(four_bits, Linear4bit) == in_layers(four_bits)
    assert matrices(four_bits, nn.Linear), "tower and head stay"
    matrix: Any = four_bits.layers[0].mlp.up_proj
    assert matrix.weight.quant_type == "nf4"
    assert matrix.weight.quant_state.nested
    assert matrix.compute_dtype == torch.float32


def test_a_layer_in_four_bits_keeps_to_its_type_on_every_processor(four_bits: VLM) -> None:
    """Where AVX512-BF16 is, bitsandbytes itself would go over to bfloat16."""
    matrix: Any = four_bits.layers[0].mlp.up_proj
    assert not matrix.support_avx512bf16_for_cpu
    states = torch.randn(3, 128, generator=torch.Generator().manual_seed(0))
    weight = dequantize_4bit(matrix.weight.data, matrix.weight.quant_state)
    with torch.no_grad():
        torch.testing.assert_close(matrix(states), states @ weight.T, rtol=1e-4, atol=1e-5)


def test_estimates_count_the_same_matrices(four_bits: VLM) -> None:
    shapes = [module.weight.quant_state.shape for module in four_bits.model.modules() if type(module) is Linear4bit]
    assert shape_of(load("embedded", device="cpu").model).quantized == sum(map(math.prod, shapes))


def test_eight_bits_pass_the_check_at_load_at_the_precision_they_compute_in() -> None:
    eight_bits = load("embedded", quantize="8bit", dtype="float32", device="cpu")
    assert matrices(eight_bits, Linear8bitLt) == in_layers(eight_bits)


def test_fields_of_the_config_pass_and_unknown_ones_are_refused() -> None:
    fields = {"bnb_4bit_quant_type": "fp4", "llm_int8_skip_modules": ["lm_head", "model.language_model.layers.0"]}
    model = load("embedded", quantize=fields, dtype="float32", device="cpu")
    assert matrices(model, Linear4bit) > {"model.visual.blocks.0.attn.qkv"}
    assert not any(name.startswith("model.language_model.layers.0.") for name in matrices(model, Linear4bit))
    with pytest.raises(InputError, match="quantize names nf4; BitsAndBytesConfig has load_in_8bit"):
        load("embedded", quantize={"nf4": True})
    with pytest.raises(InputError, match="was refused by BitsAndBytesConfig"):
        load("embedded", quantize={"llm_int8_threshold": "high"})


def test_without_bitsandbytes_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vfl.loading.quantization.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"vfl\[quantized\]"):
        load("embedded", quantize="4bit")


def test_layers_in_four_bits_are_trained_as_the_recipe_says(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    """The backward passes through layers in four bits, and the adapter holds the layers that were asked for."""
    rows = trained.write_data(tmp_path / "rows", ["image"] * 4)
    recipe = trained.settings(tiny_folder("qwen2_5_vl"), rows, tmp_path / "out", quantize="4bit", dtype="float32")
    outcome = train(recipe | {"trainer": recipe["trainer"] | {"max_steps": 2}}, progress=False)
    with safe_open(outcome.adapter / "adapter_model.safetensors", framework="pt") as file:
        matrices_b = {name: file.get_tensor(name) for name in file.keys() if "lora_B" in name}  # noqa: SIM118 no dict
    assert matrices_b
    assert all(bool(matrix.abs().max() > 0) for matrix in matrices_b.values())
    assert {int(name.split(".layers.")[1].split(".")[0]) for name in matrices_b} == {2, 3}
