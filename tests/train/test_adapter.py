"""Adapters on disk: full names, nothing lost, nothing loaded where it does not belong, no folder in part."""

import json
import os
import shutil

import pytest
import tiny
import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from vfl.errors import InputError
from vfl.io.folders import replacing_folder
from vfl.loading.adapter import CONFIG, WEIGHTS, load_adapter, read_adapter_config
from vfl.train.adapter.files import adapted_modules, save_adapter, verify_adapter
from vfl.train.adapter.lora import build_lora
from vfl.train.export.meta_model import meta_model

LAYERS = [0, 2, 3]


@pytest.fixture
def load(tiny_folder):
    return lambda family: AutoModelForImageTextToText.from_pretrained(tiny_folder(family))


@pytest.fixture
def trained(load):
    """A model whose adapter no longer is as it started."""

    def make(family="qwen2_vl", layers=LAYERS, also=(), **options):
        model = load(family)
        model = get_peft_model(model, build_lora(model, layers, {"r": 3, **options}, also=also))
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
        return model.eval()

    return make


def lora_modules(model):
    """Names without PEFT's own prefix."""
    names = [name for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    return sorted(name.removeprefix("base_model.model.") for name in names)


@torch.no_grad()
def logits(model):
    return model(input_ids=torch.arange(5, 12)[None]).logits


@pytest.mark.parametrize("family", sorted(tiny.FAMILIES))
def test_the_saved_file_holds_full_names_and_plain_peft_loads_exactly_these(load, trained, tmp_path, family):
    model = trained(family)
    names = lora_modules(model)
    assert len(names) == 21  # PEFT shortens lists of 20 and more
    save_adapter(model, tmp_path / "adapter")
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [CONFIG, WEIGHTS]
    written = json.loads((tmp_path / "adapter" / CONFIG).read_text())
    assert written["target_modules"] == names
    assert written["inference_mode"] is True
    again = PeftModel.from_pretrained(load(family), tmp_path / "adapter")
    assert lora_modules(again) == names
    assert torch.equal(logits(again), logits(model))
    assert not torch.equal(logits(again), logits(load(family)))


def test_what_peft_saves_is_shorter(trained, tmp_path):
    """The reason for writing the names ourselves; when this fails, PEFT has stopped shortening."""
    model = trained("llava", layers=range(5))
    model.save_pretrained(tmp_path / "peft")
    save_adapter(model, tmp_path / "ours")
    theirs, ours = (json.loads((tmp_path / name / CONFIG).read_text())["target_modules"] for name in ("peft", "ours"))
    assert len(ours) == 35 > len(theirs)
    assert load_file(tmp_path / "peft" / WEIGHTS).keys() == load_file(tmp_path / "ours" / WEIGHTS).keys()


@pytest.mark.parametrize(
    "options",
    [
        {"use_dora": True},
        {"use_rslora": True, "rank_pattern": {"q_proj": 5}},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"init_lora_weights": "mica"},
        {"bias": "lora_only"},
        {"modules_to_save": ["model.language_model.norm"]},
        {"also": ["vision", "projector"]},
    ],
    ids=str,
)
def test_every_kind_of_adapter_comes_back_as_it_was(load, trained, tmp_path, options):
    model = trained("qwen2_vl", **options)
    save_adapter(model, tmp_path)
    state = get_peft_model_state_dict(model)
    assert verify_adapter(model.get_base_model(), tmp_path, state) == len(state)
    again = load_adapter(load("qwen2_vl"), tmp_path)
    assert torch.equal(logits(again), logits(model))


def test_verifying_needs_no_weights_and_leaves_the_model_alone(load, trained, tmp_path, tiny_folder):
    save_adapter(trained(), tmp_path)
    base = load("qwen2_vl")
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    for model in (base, meta_model(tiny_folder("qwen2_vl"))):
        assert verify_adapter(model, tmp_path) == 42
        assert lora_modules(model) == []
    assert base.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_an_empty_copy_is_whole_under_zero3(trained, tmp_path, family):
    """Else each process would hold a share of it, and the one that verifies would wait for the others."""
    from transformers.integrations import HfDeepSpeedConfig
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    model = trained(family)
    save_adapter(model, tmp_path)
    settings = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1})
    assert verify_adapter(model.get_base_model(), tmp_path) == 42
    assert is_deepspeed_zero3_enabled()
    del settings
    assert not is_deepspeed_zero3_enabled()


def spoiled(folder, change):
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)


NAME = "base_model.model.model.language_model.layers.2.mlp.up_proj.lora_B.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop(NAME), "lacks .*layers.2.mlp.up_proj.lora_B"),
        (
            lambda weights: weights.update({NAME.replace(".2.", ".1."): weights[NAME].clone()}),
            "no place in the model for",
        ),
        (lambda weights: weights.update({NAME: torch.empty(0, 3)}), "1 empty tensors of 42, such as .*up_proj"),
        (lambda weights: weights.update({NAME: weights[NAME] / 0}), "values that are not finite"),
        (lambda weights: weights.update({NAME: weights[NAME][:, :2].contiguous()}), "does not fit"),
        (lambda weights: weights.clear(), "holds no tensor"),
    ],
)
def test_a_spoiled_file_is_caught(trained, tmp_path, tiny_folder, change, message):
    save_adapter(trained(), tmp_path)
    spoiled(tmp_path, change)
    with pytest.raises(InputError, match=message):
        verify_adapter(meta_model(tiny_folder("qwen2_vl")), tmp_path)


def test_other_values_than_were_trained_are_caught(trained, tmp_path):
    model = trained()
    save_adapter(model, tmp_path)
    state = get_peft_model_state_dict(model)
    spoiled(tmp_path, lambda weights: weights.update({NAME: weights[NAME] + 1e-6}))
    with pytest.raises(InputError, match=r"other values in .*up_proj.lora_B"):
        verify_adapter(model, tmp_path, state)
    spoiled(tmp_path, lambda weights: weights.pop(NAME))
    with pytest.raises(InputError, match="lacks 1 tensors"):
        verify_adapter(model, tmp_path, state)


def test_an_adapter_of_another_model_is_refused(load, trained, tmp_path):
    """PEFT alone warns, and leaves such an adapter as it starts: without effect."""
    save_adapter(trained("llava"), tmp_path)
    for family in ("idefics3", "qwen2_vl"):
        with pytest.raises(InputError, match=r"in .* (does not fit|lacks)"):
            load_adapter(load(family), tmp_path)
    with pytest.raises(InputError, match="has an adapter on it already"):
        load_adapter(trained("llava").get_base_model(), tmp_path)


def test_what_is_no_adapter_is_refused(tmp_path, trained):
    with pytest.raises(InputError, match="holds no adapter"):
        read_adapter_config(tmp_path)
    save_adapter(trained(), tmp_path)
    values = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(values | {"peft_type": "NEVER"}))
    with pytest.raises(InputError, match="cannot be read"):
        read_adapter_config(tmp_path)
    (tmp_path / CONFIG).write_text(json.dumps({"peft_type": "IA3"}))
    with pytest.raises(InputError, match="expected LORA"):
        read_adapter_config(tmp_path)


def test_an_adapter_spread_over_processes_is_not_saved_empty(trained, tmp_path):
    model = trained()
    gathered = dict(model.state_dict())
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.empty(0)
    with pytest.raises(InputError, match=r"42 empty tensors of 42.*gather them"):
        save_adapter(model, tmp_path / "adapter")
    assert not list(tmp_path.iterdir())
    save_adapter(model, tmp_path / "adapter", gathered)
    assert load_file(tmp_path / "adapter" / WEIGHTS)[NAME].shape == (64, 3)


def test_what_is_adapted_is_told_by_tower(trained):
    model = trained("llava", layers=[1, 4], also=["vision", "projector"], target_modules=["q_proj", "up_proj"])
    language, vision, projector = sorted(adapted_modules(model), key=lambda row: row.tower)
    assert [row.tower for row in (language, projector, vision)] == ["language", "vision", "projector"]
    projector, vision = vision, projector
    stem = "model.language_model.layers"
    assert language.modules == tuple(
        f"{stem}.{k}.{name}" for k in (1, 4) for name in ("self_attn.q_proj", "mlp.up_proj")
    )
    assert language.layers == (1, 4)
    assert vision.layers == projector.layers == ()
    assert projector.modules == tuple(f"model.multi_modal_projector.linear_{i}" for i in (1, 2))
    assert len(vision.modules) == 12
    total = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(row.parameters for row in (language, vision, projector)) == total
    assert sum(row.num_bytes for row in (language, vision, projector)) == 4 * total
    assert sorted([*language.modules, *vision.modules, *projector.modules]) == lora_modules(model)


def test_all_that_is_trained_is_counted(trained):
    model = trained("qwen2_vl", modules_to_save=["model.language_model.norm"], bias="lora_only", use_dora=True)
    rows = {row.tower: row for row in adapted_modules(model)}
    assert rows["other"].modules == ("model.language_model.norm",)
    assert sum(row.parameters for row in rows.values()) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert list(rows["language"].modules) == [n for n in dict.fromkeys(rows["language"].modules) if "layers" in n]
    assert len(rows["language"].modules) == 21


def test_a_folder_is_replaced_whole(tmp_path):
    folder = tmp_path / "results"
    for content in ("old", "new"):
        with replacing_folder(folder) as temporary:
            (temporary / content).write_text(content)
            assert temporary.parent == tmp_path
    assert [path.name for path in folder.iterdir()] == ["new"]


def test_what_is_interrupted_leaves_nothing(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "new").write_text("")

    def interrupted():
        with replacing_folder(folder) as temporary:
            (temporary / "half").write_text("")
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_folder_that_cannot_be_exchanged_stays(tmp_path, monkeypatch):
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "old").write_text("")
    rename = os.rename

    def refuse(source, target):
        if target == folder and str(source).endswith(".tmp"):
            raise OSError("no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="no"), replacing_folder(folder):
        pass
    assert [path.name for path in folder.iterdir()] == ["old"]
    shutil.rmtree(folder)
    assert not list(tmp_path.iterdir())
