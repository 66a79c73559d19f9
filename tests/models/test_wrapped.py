"""Models that come wrapped, and positions that are checked against the model's own."""

import pytest
import tiny
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForImageTextToText, AutoProcessor

import vfl
from vfl.engine.image_cache import prefill
from vfl.engine.plan import Plan
from vfl.engine.sweep import sweep
from vfl.errors import InputError
from vfl.models.vlm import VLM


def _in_memory(folder):
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float64, attn_implementation="sdpa")
    return model.eval(), AutoProcessor.from_pretrained(folder)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_an_adapted_model_gives_its_own_logits(tiny_folder, name):
    """Positions found through the wrapper are flat: the logits were off by 6 to 9 on every Qwen family."""
    model, processor = _in_memory(tiny_folder(name))
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)).eval()
    vlm = vfl.wrap(adapted, processor, model_id="adapted")
    encoded = vlm.ask("how many cats", tiny.picture())
    with torch.no_grad():
        expected = adapted(**encoded.inputs).logits[0, -1].double()
        with adapted.disable_adapter():
            plain = adapted(**encoded.inputs).logits[0, -1].double()
    ours = sweep(vlm, encoded, [Plan.own()]).logits[0].double()
    assert (ours - expected).abs().max() < 1e-4
    assert (plain - expected).abs().max() > 1e-2  # the adapter counts


def test_learned_prompts_and_other_wrappers_are_refused(tiny_folder):
    model, processor = _in_memory(tiny_folder("llava"))
    with pytest.raises(InputError, match="DataParallel was given"):
        vfl.wrap(torch.nn.DataParallel(model), processor, model_id="parallel")
    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2, num_layers=1, token_dim=8,
                                 num_attention_heads=1, num_transformer_submodules=1)  # fmt: skip
    adapted = get_peft_model(model, prompts)
    with pytest.raises(InputError, match="learned prompt tokens"):
        vfl.wrap(adapted, processor, model_id="prompts")


def test_positions_that_are_not_the_models_own_are_refused(tiny_folder, monkeypatch):
    flat = lambda self, inputs: torch.arange(inputs["input_ids"].shape[1])[None]  # noqa: E731
    monkeypatch.setattr(VLM, "positions_of", flat)
    with pytest.raises(InputError, match="Qwen2_5_VLForConditionalGeneration hands its decoder other position ids"):
        vfl.load(tiny_folder("qwen2_5_vl"))


def test_an_exception_in_the_check_names_the_class(tiny_folder, monkeypatch):
    def broken(self, inputs):
        raise AttributeError("no such thing")

    monkeypatch.setattr(VLM, "positions_of", broken)
    with pytest.raises(InputError, match=r"LlavaForConditionalGeneration .* AttributeError: no such thing"):
        vfl.load(tiny_folder("llava"))


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_other_proportions_with_as_many_tokens_are_refused(tiny_folder, name):
    """A 64 x 48 picture has 4 x 3 tokens, a 48 x 64 one 3 x 4: the keys were turned to other positions."""
    vlm = vfl.load(tiny_folder(name), dtype="float64")
    wide = vlm.ask("how many cats", tiny.picture())
    tall = vlm.ask("how many cats", tiny.picture().transpose(2))
    assert wide.spans == tall.spans
    with pytest.raises(InputError, match="same proportions"):
        sweep(vlm, wide, [Plan.swap([1], prefill(vlm, tall))])
