"""The trained parts in one file, and the model that they make of the language model.

The file holds LoRA matrices of the decoder, vision tower, connector and the new embedding rows as float16.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from vfl.errors import InputError
from vfl.testbeds.smol.config import TowerConfig
from vfl.testbeds.smol.model import build_model
from vfl.testbeds.smol.processor import SPECIAL, build_processor
from vfl.testbeds.smol.training import SCALE, Training

LORA_A, LORA_B = ".lora_A.default.weight", ".lora_B.default.weight"


def write_parts(training: Training, path: Path) -> None:
    """Write what training changed; the file appears whole or not at all."""
    recipe = training.recipe
    parts = {name: parameter.detach().to("cpu", torch.float16).contiguous() for name, parameter in training.parts()}
    told = {"tower": recipe.tower.model_dump(), "rank": recipe.rank, "seed": recipe.seed, "steps": training.step}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    save_file(parts, part, metadata={"smol": json.dumps(told)})
    part.replace(path)


def write_model(parts: Path, language: Path | str, folder: Path) -> None:
    """Write the whole model with its processor: the language model, the LoRA merged into it, tower and connector.

    Raises:
        InputError: the file is absent or holds no trained parts.
    """
    if not parts.is_file():
        raise InputError(f"{parts} is no file; expected the trained parts, as python -m vfl.testbeds.smol.train writes")
    with safe_open(parts, framework="pt") as file:
        about = (file.metadata() or {}).get("smol")
        if about is None:
            raise InputError(f"{parts} holds no trained parts of the small model; train it anew, or name another file")
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 safe_open is no dict
    processor = build_processor(language)
    tower = TowerConfig(**json.loads(about)["tower"])
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
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
