"""Loading: what is found is checked, what can't be used is refused with the reason."""

import shutil
import sys

import pytest
import tiny
import torch

import vfl
from vfl.errors import InputError
from vfl.loading.load import resolve, wrap
from vfl.models.families import FAMILIES, family_of


@pytest.mark.parametrize("name", sorted(tiny.FAMILIES))
def test_every_family_loads_and_knows_itself(tiny_folder, name):
    vlm = vfl.load(tiny_folder(name), dtype="float32")
    assert name in vlm.family.model_types
    assert vlm.num_layers == vlm.model.config.get_text_config().num_hidden_layers
    assert vlm.shares_prefix == (not vlm.family.prefix_lm)
    assert vlm.parts.decoder is vlm.model.get_submodule(vlm.parts.decoder_name)


def test_a_family_that_lies_about_sharing_is_caught(tiny_folder, monkeypatch):
    """Prefix-LM attention without the table's word for it: the check finds out, and full passes are used."""
    from dataclasses import replace

    import vfl.loading.load as loading

    monkeypatch.setattr(loading, "family_of", lambda model_type: replace(family_of(model_type), prefix_lm=False))
    vlm = vfl.load(tiny_folder("paligemma"), dtype="float64")
    assert not vlm.shares_prefix
    assert "change with later text" in vlm.notes[0]


def test_an_unknown_family_is_tried_by_discovery(tiny_folder, monkeypatch):
    import vfl.models.families as families

    monkeypatch.setattr(families, "FAMILIES", tuple(row for row in FAMILIES if row.name != "LLaVA-1.5"))
    vlm = vfl.load(tiny_folder("llava"), dtype="float32")
    assert vlm.family.name == "generic (llava)"
    assert vlm.shares_prefix
    assert "read as fractions from 0 to 1; give another way with --boxes NAME" in vlm.notes[0]
    told = vfl.load(tiny_folder("llava"), dtype="float32", boxes="glm")
    assert (told.family.boxes.name, told.notes) == ("glm", [])
    assert family_of("glm4v").boxes.name == "glm"
    assert family_of("gemma4").boxes.name == "gemini"
    assert family_of("molmo2").boxes.name == "molmo2"
    assert not family_of("never_heard_of").known


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mllama", "reads the image through cross-attention"),
        ("llama_text", "text-only"),
        ("llava_plain", "no chat template"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(tiny_folder, name, reason):
    with pytest.raises(InputError, match=reason):
        vfl.load(tiny_folder(name))


def test_a_given_chat_template_is_used(tiny_folder):
    template = (tiny_folder("llava") / "chat_template.jinja").read_text()
    with_own = vfl.load(tiny_folder("llava"))
    with_given = vfl.load(tiny_folder("llava_plain"), chat_template=template)
    prompts = [vlm.ask("how many cats", tiny.picture()).input_ids for vlm in (with_own, with_given)]
    assert torch.equal(*prompts)


def test_paligemma_is_asked_without_a_template(tiny_folder):
    vlm = vfl.load(tiny_folder("paligemma_plain"))
    encoded = vlm.ask("how many cats", tiny.picture())
    assert encoded.spans[0].start == 0
    assert "how many cats" in vlm.tokenizer.decode(encoded.input_ids[0], skip_special_tokens=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./no/such/folder", "No model folder"),
        ("/no/such/folder", "No model folder"),
        ("a/b/c", "No model folder"),
        ("org/absent-model", "No model configuration could be loaded from 'org/absent-model'"),
    ],
)
def test_names_that_lead_nowhere(name, message):
    with pytest.raises(InputError, match=message):
        vfl.load(name)


def test_folders_are_never_looked_up_on_the_hub(tiny_folder, tmp_path):
    assert resolve(tiny_folder("llava"))[1]
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="holds a PEFT adapter"):
        vfl.load(tmp_path)


def test_missing_weights_are_not_left_random(tiny_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "cut"
    shutil.copytree(tiny_folder("llava"), folder)
    (path,) = folder.glob("*.safetensors")
    weights = load_file(path)
    weights.pop(next(name for name in weights if "layers.1.mlp" in name))
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match="would be random"):
        vfl.load(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"dtype": "float8"}, "dtype='float8'"), ({"attn_implementation": "flash_attention_2"}, "needs masks")],
)
def test_settings_that_cannot_be_used(tiny_folder, settings, message):
    with pytest.raises(InputError, match=message):
        vfl.load(tiny_folder("llava"), **settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_refused(tiny_folder):
    with pytest.raises(InputError, match="no CUDA device"):
        vfl.load(tiny_folder("llava"), device="cuda:0")


def test_a_broken_torchvision_is_explained(tiny_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(InputError, match="pip install --upgrade torch torchvision"):
        vfl.load(tiny_folder("qwen2_vl"))


def test_a_model_in_memory_is_wrapped_as_it_is(tiny_folder):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = tiny_folder("smolvlm")
    model = AutoModelForImageTextToText.from_pretrained(folder)
    vlm = wrap(model, AutoProcessor.from_pretrained(folder), model_id="mine")
    assert vlm.model is model
    with pytest.raises(InputError, match="not a processor"):
        wrap(model, AutoProcessor.from_pretrained(folder).tokenizer, model_id="mine")
