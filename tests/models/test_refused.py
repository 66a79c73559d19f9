"""Folders, devices, templates and pictures that can't be used end in a sentence, not in a traceback."""

import shutil
from pathlib import Path

import pytest
import tiny
import torch

import vfl
from vfl.errors import InputError
from vfl.loading.weight_files import check_weight_files

TEXT_ONLY = "{% for m in messages %}{% for c in m.content %}{{ c.text }}{% endfor %}{% endfor %}"
STRING_CONTENT = "{% for m in messages %}{{ '<s>' + m.content + '</s>' }}{% endfor %}"
BROKEN = "{% for m in messages %}{{ m.content"


@pytest.fixture
def copied(tiny_folder, tmp_path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder("llava"), folder)
    return folder


def test_weights_that_are_cut_off(copied) -> None:
    (path,) = copied.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="cut off or damaged"):
        vfl.load(copied)


def test_a_pointer_instead_of_weights(copied) -> None:
    (path,) = copied.glob("*.safetensors")
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InputError, match="git lfs pull"):
        vfl.load(copied)


def test_pickled_weights_are_refused_on_purpose(copied) -> None:
    (path,) = copied.glob("*.safetensors")
    path.unlink()
    torch.save({}, copied / "pytorch_model.bin")
    with pytest.raises(InputError, match="refused on purpose"):
        vfl.load(copied)


def test_an_adapter_beside_a_config(tmp_path) -> None:
    for name in ("config.json", "adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match="PEFT adapter"):
        check_weight_files(tmp_path)


@pytest.mark.parametrize("device", ["tpu9", "gpu", "cuda:x"])
def test_no_device(tiny_folder, device) -> None:
    with pytest.raises(InputError, match="is no device"):
        vfl.load(tiny_folder("llava"), device=device)


def test_no_tokenizer_files(copied) -> None:
    for path in copied.glob("*token*"):
        path.unlink()
    with pytest.raises(InputError, match=r"tokenizer|processor"):
        vfl.load(copied)


@pytest.mark.parametrize("template", [TEXT_ONLY, STRING_CONTENT, BROKEN])
def test_templates_that_do_not_take_images(tiny_folder, template) -> None:
    with pytest.raises(InputError, match="--chat-template"):
        vfl.load(tiny_folder("llava"), chat_template=template)


def test_a_picture_as_thin_as_a_hair(tiny_folder) -> None:
    vlm = vfl.load(tiny_folder("qwen2_5_vl"))
    with pytest.raises(InputError, match="size that it supports"):
        vlm.ask("how many cats", tiny.picture(size=(2100, 8)))
