"""A tiny recipe, its processor and model, for the tests of the embedded model's training."""

from pathlib import Path

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from vfl.testbeds.micro.config import Recipe
from vfl.testbeds.micro.model import build_model
from vfl.testbeds.micro.packing import Packer
from vfl.testbeds.micro.processor import build_processor


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Three free and three planted steps of a model of three layers."""
    sizes = {
        "width": 32,
        "feed_forward": 32,
        "layers": 3,
        "heads": 2,
        "kv_heads": 1,
        "mrope_section": (2, 3, 3),
        "vision_width": 16,
        "vision_feed_forward": 16,
        "vision_depth": 1,
        "vision_heads": 2,
    }
    return Recipe.model_validate(
        {
            "output": tmp_path / "weights",
            "work": tmp_path / "work",
            "free_steps": 3,
            "plant_steps": 3,
            "auxiliary_steps": 4,
            "batch": 4,
            "warmup": 2,
            "checkpoint_every": 1,
            "compile": False,
            "precision": "float32",
            "threads": 1,
            "model": sizes,
            "plant": {
                "layers": {"recognition": [0, 1], "counting": [1], "grounding": [2], "ocr": [2]},
                "spread": ["recognition"],
            },
        }
    )


@pytest.fixture(scope="session")
def processor() -> Qwen2_5_VLProcessor:
    return build_processor()


@pytest.fixture
def packer(processor: Qwen2_5_VLProcessor, recipe: Recipe) -> Packer:
    return Packer(processor, recipe.slots, recipe.slot)


@pytest.fixture
def model(processor: Qwen2_5_VLProcessor, recipe: Recipe) -> Qwen2_5_VLForConditionalGeneration:
    """Untrained, in float64, with weights large enough that attention matters."""
    built = build_model(recipe.model, processor.tokenizer, seed=1).double().eval()
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5.0)
    return built
