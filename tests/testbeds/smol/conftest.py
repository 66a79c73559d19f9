"""A tiny language model on disk and a tiny recipe around it, for the tests of the small model's training."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from vfl.testbeds.micro.processor import build_tokenizer
from vfl.testbeds.smol import own_texts
from vfl.testbeds.smol.config import Recipe


@pytest.fixture(scope="session")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers of the real Llama classes, untrained, with weights large enough that attention matters."""
    folder = tmp_path_factory.mktemp("language")
    tokenizer = build_tokenizer()
    torch.manual_seed(3)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def recipe(language: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Two steps of the tower and three of everything, beside four short texts of the language model's own."""
    monkeypatch.setattr(own_texts, "COUNT", 4)
    monkeypatch.setattr(own_texts, "TOKENS", 40)
    return Recipe.model_validate(
        {
            "output": tmp_path / "parts.safetensors",
            "work": tmp_path / "work",
            "lm": str(language),
            "steps": 3,
            "rows": 2,
            "tokens": 256,
            "rank": 2,
            "warmup": 2,
            "checkpoint_every": 1,
            "evaluate_every": 3,
            "threads": 1,
            "tower": {"width": 16, "feed_forward": 16, "depth": 1, "heads": 2, "steps": 2, "batch": 2, "warmup": 1},
        }
    )
