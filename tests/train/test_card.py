"""The adapter's README: its code runs, its metadata is what the hub reads, and no name from data becomes markup."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model
from preflights import HOSTILE, preflight
from transformers import AutoModelForImageTextToText

from vfl.loading.beds import EMBEDDED
from vfl.models.discover import discover
from vfl.train.adapter.card import card, code, plain, write_card
from vfl.train.preflight.facts import Preflight
from vfl.train.report.before_after import Change, Rate

CHANGES = (
    Change("counting", 40, Rate(0.5, 0.4, 0.6), Rate(0.8, 0.7, 0.9), Rate(0.3, 0.2, 0.4)),
    Change(f"set|{HOSTILE}", 7, None, Rate(0.1, 0.0, 0.2)),
)
LORA = {"r": 64, "lora_alpha": 64, "rank_pattern": {"layers.3": 8}}


def on(flight: Preflight, **facts: Any) -> Preflight:
    return flight.model_copy(update={"model": flight.model.model_copy(update={"revision": None, **facts})})


def with_adapter(folder: Path, base: Path) -> Path:
    """A trained-looking adapter on one layer of a base model, as PEFT saves it (with its own README.md)."""
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    parts = discover(model)
    names = [f"{parts.decoder_name}.layers.1.self_attn.{name}" for name in ("q_proj", "v_proj")]
    get_peft_model(model, LoraConfig(r=2, target_modules=names, init_lora_weights=False)).save_pretrained(folder)
    return folder


def python(content: str) -> str:
    (block,) = re.findall(r"```python\n(.*?)```", content, flags=re.DOTALL)
    return str(block)


def test_the_hub_lists_what_was_measured() -> None:
    """As `ModelCard` reads the metadata back, whatever the names; a base of this machine is named by its folder."""
    flight = on(preflight(), id="/home/somebody/models/mine", on_hub=False)
    data = ModelCard(card(flight, LORA, CHANGES).content).data
    assert data.model_name == "LoRA of mine"
    assert [(result.dataset_type, result.metric_type, result.metric_value) for result in data.eval_results] == [
        ("counting", "accuracy", 0.8),
        (f"set|{HOSTILE}", "accuracy", 0.1),
    ]
    assert data.eval_results[0].dataset_name == "counting (40 questions)"
    assert ModelCard(card(flight, LORA).content).data.eval_results is None


@pytest.mark.parametrize("base", ["qwen2_5_vl", "llava", "embedded"])
def test_its_code_loads_the_adapter_and_answers(
    base: str, tiny_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = EMBEDDED if base == "embedded" else tiny_folder(base)
    adapter = with_adapter(tmp_path / "adapter", place)
    assert (adapter / "README.md").is_file()
    facts = {"id": "embedded" if base == "embedded" else str(place), "on_hub": False, "test_bed": base == "embedded"}
    path = write_card(adapter, on(preflight(), dtype="float32", **facts), LORA)
    tiny.picture(3, (80, 80)).save(adapter / "picture.png")
    monkeypatch.chdir(adapter)
    names: dict[str, Any] = {}
    exec(python(path.read_text(encoding="utf-8")), names)
    assert isinstance(names["answer"], str)
    assert names["model"].dtype == torch.float32
    lora = [name for name, value in names["model"].named_parameters() if "lora_" in name and bool(value.any())]
    assert len(lora) == 4, "the adapter's weights were not loaded"


def test_its_metadata_is_what_the_hub_reads(tmp_path: Path) -> None:
    data = ModelCard.load(write_card(tmp_path, preflight(), LORA, CHANGES)).data.to_dict()
    assert data["base_model"] == "owner/Model-7B"
    assert data["library_name"] == "peft"
    assert data["datasets"] == ["owner/data"]
    assert {"lora", "vfl", "sft"} <= set(data["tags"])


def test_a_folder_is_no_base_model_on_the_hub() -> None:
    written = card(on(preflight(), id="/data/model", on_hub=False), LORA)
    assert "base_model" not in written.data.to_dict()
    assert 'base = "/data/model"' in written.content
    assert "/data/model" in written.text


def test_it_names_what_was_trained_on_what() -> None:
    text = card(preflight(), LORA, CHANGES, command="vfl train recipe.yaml").text
    for fact in ("10–17, 20–23", "ef" * 32, "cd" * 32, "ab" * 20, "69,206,016", "lora_alpha", "`layers.3`", "2.15.0"):
        assert fact in text.replace("rank_pattern.", "`").replace("``", "`")
    assert "| counting | 40 | 50.0\u00a0% (40.0–60.0) | 80.0\u00a0% (70.0–90.0) | +30.0 (+20.0 to +40.0) |" in text
    assert "| – |" in text
    assert "vfl merge" in text
    assert "test bed" not in text.lower()


def test_without_an_evaluation_it_says_so() -> None:
    assert "Not measured." in card(preflight(), LORA).text


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        ("function", "in the decoder layers that serve counting, grounding and"),
        ("reversed", "other than those that serve"),
        ("random", "in random decoder layers, as many as those that serve"),
        ("full", "in all decoder layers"),
    ],
)
def test_a_control_arm_is_not_called_a_function(arm: str, words: str) -> None:
    flight = preflight()
    text = card(flight.model_copy(update={"arm": flight.arm.model_copy(update={"arm": arm})}), LORA).text
    assert words in text


def test_the_embedded_model_is_called_a_test_bed() -> None:
    text = card(on(preflight(), id="embedded", on_hub=False, test_bed=True), LORA).text
    assert "**A test bed.**" in text
    assert "bed_folders" in python(text)


def test_nothing_from_data_becomes_markup() -> None:
    text = card(preflight(), LORA, CHANGES).text
    outside = re.sub(r"(`+).+?\1", "", text)
    assert "<script>" not in outside.replace("\\<", "").replace("\\>", "")
    for line in text.splitlines():
        if line.startswith("| set"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 6


@pytest.mark.parametrize("text", ["a`b", "``", "`", "a|b", "", "a\nb", "x``y`z"])
def test_code_is_one_span_whatever_it_holds(text: str) -> None:
    quoted = code(text)
    fence = re.match("`+", quoted)
    assert fence
    inner = quoted[len(fence[0]) : -len(fence[0])]
    assert fence[0] not in re.findall("`+", inner)
    assert "\n" not in quoted
    assert not re.search(r"(?<!\\)\|", quoted)
    assert plain(text).replace("\\", "") == " ".join(text.split())
