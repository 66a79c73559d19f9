"""Checkpoints and finished folders: written under a temporary name and renamed, so that none is ever half there."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from vfl.errors import InputError
from vfl.testbeds.micro.config import Recipe


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    torch.save(state, part)
    os.replace(part, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return loaded


def check_output(folder: Path) -> None:
    """Refuses a folder whose contents a finished run must not replace.

    Raises:
        InputError: it exists and holds something else than a model.
    """
    if folder.exists() and not (folder / "model.safetensors").is_file():
        raise InputError(f"output {folder} exists and holds no model; name a new folder, or one of an earlier run")


def write_folder(
    folder: Path, model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, recipe: Recipe, step: int
) -> None:
    """Model, processor and, for a planted model, the truth (planted.json: layers 0-based) in one folder."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    processor.save_pretrained(part)
    if recipe.planted:
        truth = {
            "layers": {name: list(layers) for name, layers in recipe.plant.layers.items()},
            "spread": list(recipe.plant.spread),
            "seed": recipe.seed,
            "steps": step,
        }
        (part / "planted.json").write_text(json.dumps(truth, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
