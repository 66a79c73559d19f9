"""Tiny Qwen2-VL, Qwen2.5-VL and Qwen3-VL: M-RoPE on non-square grids, window attention (2.5), DeepStack (3)."""

from pathlib import Path
from typing import Any

from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from tiny import templates, tokens, weights

PATCH = 8  # pixels; two by two patches make a token, so a 64 x 48 picture has 4 x 3 tokens
IMAGE_SIZE = {"shortest_edge": 16 * 16, "longest_edge": 96 * 96}
# temporal, height and width halves of a head: 2 + 2 + 2 = 12 / 2 (Qwen2, 2.5) and 4 + 2 + 2 = 16 / 2 (Qwen3)
TEXT = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]},
}
VISION = {
    "depth": 2,
    "num_heads": 2,
    "patch_size": PATCH,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
VISION3 = VISION | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "out_hidden_size": TEXT["hidden_size"],
    "num_position_embeddings": 36,
    "deepstack_visual_indexes": [0, 1],  # features of both vision layers join after text layers 0 and 1
}
INTERLEAVED = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip


def qwen2_vl(folder: Path) -> Path:
    tokenizer = _tokenizer()
    vision = VISION | {"embed_dim": 32, "hidden_size": TEXT["hidden_size"], "mlp_ratio": 2}
    config = Qwen2VLConfig(text_config=_text(tokenizer), vision_config=vision, **_special_ids(tokenizer))
    processor = Qwen2VLProcessor(_images(), tokenizer, _videos(), chat_template=templates.QWEN)
    return weights.save(Qwen2VLForConditionalGeneration, config, processor, folder)


def qwen2_5_vl(folder: Path) -> Path:
    tokenizer = _tokenizer()
    vision = VISION | {
        "hidden_size": 32,
        "intermediate_size": 48,
        "out_hidden_size": TEXT["hidden_size"],
        "window_size": 32,  # pixels: windows of 2 x 2 tokens, cut off at the edge of a 4 x 3 grid
        "fullatt_block_indexes": [1],
    }
    config = Qwen2_5_VLConfig(text_config=_text(tokenizer), vision_config=vision, **_special_ids(tokenizer))
    processor = Qwen2_5_VLProcessor(_images(), tokenizer, _videos(), chat_template=templates.QWEN)
    return weights.save(Qwen2_5_VLForConditionalGeneration, config, processor, folder)


def qwen3_vl(folder: Path) -> Path:
    tokenizer = _tokenizer()
    text = _text(tokenizer) | {"head_dim": 16, "rope_parameters": INTERLEAVED}
    config = Qwen3VLConfig(text_config=text, vision_config=VISION3, **_special_ids(tokenizer))
    videos = Qwen3VLVideoProcessor(patch_size=PATCH, size=IMAGE_SIZE)
    processor = Qwen3VLProcessor(_images(), tokenizer, videos, chat_template=templates.QWEN3)
    return weights.save(Qwen3VLForConditionalGeneration, config, processor, folder)


def qwen3_vl_moe(folder: Path) -> Path:
    """The same with experts."""
    tokenizer = _tokenizer()
    text = _text(tokenizer) | {"head_dim": 16, "rope_parameters": INTERLEAVED}
    text |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "tie_word_embeddings": False}
    config = Qwen3VLMoeConfig(text_config=text, vision_config=VISION3, **_special_ids(tokenizer))
    videos = Qwen3VLVideoProcessor(patch_size=PATCH, size=IMAGE_SIZE)
    processor = Qwen3VLProcessor(_images(), tokenizer, videos, chat_template=templates.QWEN3)
    return weights.save(Qwen3VLMoeForConditionalGeneration, config, processor, folder)


def _tokenizer() -> Qwen2Tokenizer:
    return tokens.qwen(SPECIAL, extra_special_tokens=SPECIAL)


def _text(tokenizer: Qwen2Tokenizer) -> dict[str, Any]:
    return TEXT | tokens.special_ids(tokenizer)


def _special_ids(tokenizer: Qwen2Tokenizer) -> dict[str, int]:
    names = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    return {f"{key}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for key, name in names.items()}


def _images() -> Qwen2VLImageProcessor:
    return Qwen2VLImageProcessor(patch_size=PATCH, merge_size=2, temporal_patch_size=2, size=IMAGE_SIZE)


def _videos() -> Qwen2VLVideoProcessor:
    return Qwen2VLVideoProcessor(patch_size=PATCH, merge_size=2, temporal_patch_size=2, size=IMAGE_SIZE)
