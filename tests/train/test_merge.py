"""Merging: the base's dtype and files, the adapter's logits, and nothing written that was not checked."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from peft import LoraModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from vfl.errors import InputError
from vfl.io.config import read_config
from vfl.io.run_folder import RunFolder
from vfl.loading.adapter import CONFIG, WEIGHTS, load_adapter
from vfl.loading.load import load
from vfl.models.pixel_limits import SAVED, limits_of
from vfl.train.adapter import merge as merging
from vfl.train.adapter.files import save_adapter
from vfl.train.adapter.lora import build_lora
from vfl.train.adapter.merge import TOLERANCE, MergeConfig

pytestmark = pytest.mark.long


def merge(adapter, out, *, overwrite=False, **settings):
    return merging.merge(MergeConfig(adapter=adapter, out=out, **settings), overwrite=overwrite)


@pytest.fixture(scope="module")
def saved(tiny_folder, tmp_path_factory):
    """A checkpoint of a family in a dtype, saved once; read it, do not write."""
    folders = {}

    def make(family, dtype):
        if (family, dtype) not in folders:
            folder = folders[family, dtype] = tmp_path_factory.mktemp("saved")
            AutoModelForImageTextToText.from_pretrained(tiny_folder(family), dtype=dtype).save_pretrained(folder)
            AutoProcessor.from_pretrained(tiny_folder(family)).save_pretrained(folder)
        return folders[family, dtype]

    return make


@pytest.fixture
def base(saved, tmp_path):
    """A checkpoint of a family in a dtype, for one test."""

    def make(family="qwen2_vl", dtype="float32"):
        return Path(shutil.copytree(saved(family, dtype), tmp_path / f"base-{family}-{dtype}"))

    return make


@pytest.fixture
def adapter(tmp_path):
    """An adapter with effect, on a base folder."""

    def make(folder, size=0.1, **options):
        model = AutoModelForImageTextToText.from_pretrained(folder)
        model = get_peft_model(model, build_lora(model, [1, 2], {"r": 3, **options}))
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += size * torch.randn(parameter.shape, generator=generator)
        save_adapter(model, tmp_path / "adapter")
        return tmp_path / "adapter"

    return make


@torch.no_grad()
def logits(folder, *adapters):
    """Of the model alone and then with each adapter, and the prompt."""
    vlm = load(folder, dtype=json.loads((folder / "config.json").read_text())["dtype"])
    encoded = vlm.ask("how many cats", tiny.picture())
    said = [vlm.model(**encoded.inputs).logits.float()]
    said += [load_adapter(vlm.model, adapter)(**encoded.inputs).logits.float() for adapter in adapters]
    return *said, encoded


@pytest.mark.parametrize("family", sorted(tiny.FAMILIES))
def test_the_merged_model_is_the_adapter_on_its_base(base, adapter, tmp_path, family):
    folder = base(family)
    saved = adapter(folder)
    result = merge(saved, tmp_path / "merged")
    assert result.difference <= result.allowed < 0.01 * result.effect
    (plain, wanted, prompt), (merged, again) = logits(folder, saved), logits(result.folder)
    assert (merged - wanted).abs().max() < 1e-4 * wanted.abs().max()
    assert (merged - plain).abs().max() > 0.1
    assert torch.equal(prompt.input_ids, again.input_ids)
    assert prompt.image_key == again.image_key


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_the_bases_dtype_is_kept(base, adapter, tmp_path, dtype):
    folder = base("llava", dtype)
    result = merge(adapter(folder), tmp_path / "merged")
    assert result.dtype == dtype
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "merged" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(after[name].dtype == tensor.dtype == getattr(torch, dtype) for name, tensor in before.items())
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert len(changed) == 14
    assert all(f"layers.{layer}." in name for name in changed for layer in (1, 2) if f".{layer}." in name)
    assert not any("vision" in name or "projector" in name for name in changed)


def test_everything_else_is_the_bases(base, adapter, tmp_path):
    folder = base()
    merge(adapter(folder), tmp_path / "merged")
    names = sorted(path.name for path in folder.iterdir())
    assert sorted(path.name for path in (tmp_path / "merged").iterdir()) == sorted([*names, "settings.yaml"])
    for name in names:
        if name not in ("model.safetensors", "config.json"):
            assert (tmp_path / "merged" / name).read_bytes() == (folder / name).read_bytes(), name
    configs = [json.loads((place / "config.json").read_text()) for place in (folder, tmp_path / "merged")]
    assert configs[0] == configs[1]


@pytest.mark.parametrize("options", [{"use_dora": True}, {"use_rslora": True}, {"init_lora_weights": "pissa"}], ids=str)
def test_kinds_of_adapters_with_the_size_of_their_pictures(base, adapter, tmp_path, options):
    folder = base()
    saved = adapter(folder, **options)
    (saved / SAVED).write_text(json.dumps({"size": {"shortest_edge": 512, "longest_edge": 1024}}))
    assert merge(saved, tmp_path / "merged").effect > 0.1
    assert limits_of(AutoProcessor.from_pretrained(tmp_path / "merged")) == (512, 1024)


def test_the_base_can_be_named(base, adapter, tmp_path):
    folder = base()
    saved = adapter(folder)
    folder.rename(tmp_path / "moved")
    with pytest.raises(InputError, match="base-qwen2_vl-float32"):
        merge(saved, tmp_path / "merged")
    merge(saved, tmp_path / "merged", model=str(tmp_path / "moved"))
    values = json.loads((saved / CONFIG).read_text())
    (saved / CONFIG).write_text(json.dumps(values | {"base_model_name_or_path": None}))
    with pytest.raises(InputError, match=r"does not name its base model. Give it with --model"):
        merge(saved, tmp_path / "again")


def test_what_lies_there_is_not_lost(base, adapter, tmp_path):
    folder = base()
    saved = adapter(folder)
    out = tmp_path / "merged"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"holds other files, which would be lost"):
            merge(saved, out, overwrite=overwrite)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    for place in (folder, saved, tmp_path):
        with pytest.raises(InputError, match="which the merge reads"):
            merge(saved, place, overwrite=True)
    (out / "notes.txt").rename(out / "config.json")
    with pytest.raises(InputError, match=r"holds a model. Use --overwrite to replace it"):
        merge(saved, out)
    merge(saved, out, overwrite=True)
    assert (out / "model.safetensors").is_file()


def test_a_folder_that_another_process_writes_is_refused(base, adapter, tmp_path):
    saved = adapter(base())
    with (
        RunFolder(tmp_path / "merged", merging.MODEL, whole=True).held(overwrite=False),
        pytest.raises(InputError, match="is being written by process"),
    ):
        merge(saved, tmp_path / "merged")


def test_its_settings_merge_the_same_again(base, adapter, tmp_path):
    folder = base("llava")
    saved = adapter(folder)
    merge(saved, tmp_path / "merged")
    settings = read_config(MergeConfig, tmp_path / "merged" / "settings.yaml", {"out": tmp_path / "again"})
    merging.merge(settings)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("merged", "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_nothing_is_written_when_the_logits_differ(base, adapter, tmp_path, monkeypatch):
    folder = base()
    saved = adapter(folder)
    monkeypatch.setitem(TOLERANCE, torch.float32, 0.0)
    with pytest.raises(InputError, match="Nothing was written: the merged logits differ by"):
        merge(saved, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_merge_that_loses_a_module_is_found(base, adapter, tmp_path, monkeypatch):
    """Were one of fourteen modules left out, the logits would show it."""
    saved = adapter(base())
    complete = LoraModel.merge_and_unload

    def incomplete(self, **options):
        self.get_submodule("model.model.language_model.layers.1.mlp.up_proj").lora_B.default.weight.data *= 0
        return complete(self, **options)

    monkeypatch.setattr(LoraModel, "merge_and_unload", incomplete)
    with pytest.raises(InputError, match="Nothing was written"):
        merge(saved, tmp_path / "merged")


def test_an_effect_that_rounding_swallows_is_told(base, adapter, tmp_path, caplog):
    folder = base("llava", "bfloat16")
    merge(adapter(folder, size=1e-4), tmp_path / "merged")
    assert "Rounding takes away much of what the adapter learned" in caplog.text


def test_bases_that_cannot_be_merged_into(base, adapter, tmp_path):
    folder = base()
    saved = adapter(folder)
    config = json.loads((folder / "config.json").read_text())
    for change, message in (
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
            r"quantized \(bitsandbytes\)",
        ),
        ({"dtype": None, "torch_dtype": None, "text_config": config["text_config"] | {"dtype": None}}, "--dtype"),
    ):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(InputError, match=message):
            merge(saved, tmp_path / "merged")
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(saved / WEIGHTS)
    save_file({name: tensor / 0 for name, tensor in weights.items()}, saved / WEIGHTS)
    with pytest.raises(InputError, match="cannot be merged into"):
        merge(saved, tmp_path / "merged")
    assert merging.TOLERANCE.keys() == {torch.float64, torch.float32, torch.float16, torch.bfloat16}
