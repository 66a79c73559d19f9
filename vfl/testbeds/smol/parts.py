"""The trained parts in one file, and the model that they make of the language model.

The file holds LoRA matrices of the decoder, vision tower, connector and the new embedding rows as float16.
"""

import json
import shutil
from pathlib import Path

import torch

from vfl.testbeds.smol.config import TowerConfig
from vfl.testbeds.smol.model import build_model
from vfl.testbeds.smol.parts_file import read_parts, save_parts
from vfl.testbeds.smol.processor import SPECIAL, build_processor
from vfl.testbeds.smol.training import SCALE, Training

LORA_A, LORA_B = ".lora_A.default.weight", ".lora_B.default.weight"


def write_parts(training: Training, path: Path) -> None:
    """Write what training changed; the file appears whole or not at all."""
    recipe = training.recipe
    about = {"tower": recipe.tower.model_dump(), "rank": recipe.rank, "seed": recipe.seed, "steps": training.step}
    if recipe.plant is not None:
        about["planted"] = recipe.plant.layers
    save_parts(path, training.parts(), about)


def write_model(parts: Path, language: Path | str, folder: Path) -> None:
    """Write the whole model with its processor: the language model, the LoRA merged into it, tower and connector.

    Where layers were planted, planted.json says which.

    Raises:
        InputError: the file is absent or holds no trained parts.
    """
    about, tensors = read_parts(parts)
    processor = build_processor(language)
    tower = TowerConfig(**about["tower"])
    model = build_model(language, processor.tokenizer, tower, seed=0)
    state = model.state_dict()
    with torch.no_grad():
        for name, tensor in tensors.items():
            if name == "new_rows":
                ids = processor.tokenizer.convert_tokens_to_ids(list(SPECIAL))
                state["model.text_model.embed_tokens.weight"][ids] = tensor
            elif name.endswith(LORA_A):
                stem = name.removesuffix(LORA_A)
                state[f"{stem}.weight"] += SCALE * tensors[stem + LORA_B] @ tensor
            elif not name.endswith(LORA_B):
                state[name].copy_(tensor)
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    processor.save_pretrained(part)
    if "planted" in about:
        (part / "planted.json").write_text(json.dumps({"layers": about["planted"]}) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
