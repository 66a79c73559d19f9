"""The embedded folder: small, safetensors only, and usable with plain transformers."""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

import vfl.testbeds.micro
from vfl.probes.make import drawn_pairs
from vfl.probes.style import MICRO_STYLE
from vfl.testbeds.micro.questions import FUNCTIONS

FOLDER = Path(vfl.testbeds.micro.__file__).parent / "weights"
LARGEST = 12 * 1024 * 1024


def test_the_folder_is_small_and_holds_no_pickles() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LARGEST
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja"}


def test_the_truth_names_layers_of_the_model() -> None:
    planted = json.loads((FOLDER / "planted.json").read_text())["layers"]
    num_layers = json.loads((FOLDER / "config.json").read_text())["text_config"]["num_hidden_layers"]
    assert set(planted) == set(FUNCTIONS)
    assert all(0 <= layer < num_layers for layers in planted.values() for layer in layers)


def test_plain_transformers_loads_it_and_it_answers() -> None:
    processor = AutoProcessor.from_pretrained(FOLDER)
    model = AutoModelForImageTextToText.from_pretrained(FOLDER, dtype=torch.float32).eval()
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    right = []
    for pair in drawn_pairs(("recognition", "counting", "ocr"), pairs=8, seed=77, style=MICRO_STYLE):
        content = [{"type": "image"}, {"type": "text", "text": pair.question}]
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(text=[prompt], images=[pair.image], return_tensors="pt")
        assert (inputs["input_ids"] == model.config.image_token_id).sum() == 25
        ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        right.append(processor.tokenizer.decode(ids, skip_special_tokens=True) == pair.answer)
    assert np.mean(right) >= 0.85
