"""One paragraph where a model is right and the place, the attention or the memory is not; what was given stays."""

import pytest
import tiny
import torch
from accelerate import cpu_offload, disk_offload
from transformers import AutoModelForImageTextToText, AutoProcessor

import vfl
from vfl.engine.image_cache import prefill
from vfl.engine.memory import is_out_of_memory, not_enough_memory
from vfl.errors import InputError
from vfl.loading.load import wrap


@pytest.fixture
def read(tiny_folder):
    """(model, processor) of the tiny Qwen2.5-VL, as a user reads them."""
    folder = tiny_folder("qwen2_5_vl")
    return AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)


def paragraph(error):
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("how", ["flex_attention", "flash_attention_2"])
def test_attention_without_masks_is_refused(read, how):
    model, processor = read
    model.config.get_text_config()._attn_implementation = how  # set as a loader does it on a GPU
    with pytest.raises(InputError, match=f"attn_implementation='{how}'") as error:
        wrap(model, processor, model_id="mine")
    assert "model.set_attn_implementation('sdpa')" in paragraph(error)
    model.set_attn_implementation("sdpa")
    assert wrap(model, processor, model_id="mine").shares_prefix


@pytest.mark.parametrize("how", ["disk", "cpu"])
def test_offloaded_weights_are_refused(read, how, tmp_path):
    model, processor = read
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    if how == "disk":
        disk_offload(model, tmp_path / "offloaded", execution_device="cpu")
    else:
        cpu_offload(model, execution_device="cpu")
    with pytest.raises(InputError, match="weights of mine are not in memory") as error:
        wrap(model, processor, model_id="mine")
    assert "such as model." in paragraph(error)
    assert before.keys() == model.state_dict().keys()


def test_a_device_that_only_has_shapes(tiny_folder):
    with pytest.raises(InputError, match="meta device"):
        vfl.load(tiny_folder("llava"), device="meta")


class Full:
    """A module's forward pass that finds no memory."""

    def __init__(self, error):
        self.error = error

    def __call__(self, *_, **__):
        raise self.error


ERRORS = [
    (torch.OutOfMemoryError, "CUDA out of memory.\nTried much"),
    (RuntimeError, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    (MemoryError, ""),
]


@pytest.mark.parametrize(("part", "place"), [("visual", "in the vision tower"), ("layer", "an image was prefilled")])
def test_no_memory_for_an_image(read, monkeypatch, part, place):
    model, processor = read
    vlm = wrap(model, processor, model_id="mine")
    encoded = vlm.ask("How many?", tiny.picture())
    before = encoded.input_ids.clone()
    module = model.model.visual if part == "visual" else vlm.layers[0]
    for kind, text in ERRORS:
        monkeypatch.setattr(module, "forward", Full(kind(text)))
        with pytest.raises(kind) as raised:
            prefill(vlm, encoded)
        assert is_out_of_memory(raised.value)
        message = not_enough_memory(raised.value)
        assert place in message
        assert "\n" not in message
        assert all(word in message for word in ("max_pixels", "batch", "attn_implementation: sdpa"))
    monkeypatch.undo()
    assert torch.equal(encoded.input_ids, before)
    assert len(prefill(vlm, encoded).keys) == vlm.num_layers
