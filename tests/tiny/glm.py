"""Tiny GLM-4V and GLM-4.5V: M-RoPE over a grid as in Qwen2-VL, the second with experts."""

from pathlib import Path
from typing import Any

from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vImageProcessor,
    Glm4vMoeConfig,
    Glm4vMoeForConditionalGeneration,
    Glm4vProcessor,
    Glm4vVideoProcessor,
    PreTrainedTokenizerBase,
)

from tiny import templates, tokens, weights

PATCH = 8
SIZE = {"shortest_edge": 2 * 16 * 16, "longest_edge": 2 * 96 * 96}  # of the two frames that a patch holds
IMAGE = {
    "image": "<|image|>", "video": "<|video|>", "image_start": "<|begin_of_image|>", "image_end": "<|end_of_image|>",
    "video_start": "<|begin_of_video|>", "video_end": "<|end_of_video|>",
}  # fmt: skip
SPECIAL = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "[gMASK]", "<sop>", *IMAGE.values()]
TEXT = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]}
EXPERTS = {
    "moe_intermediate_size": 32,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "rope_parameters": ROPE | {"partial_rotary_factor": 1.0},
}
VISION = {
    "depth": 2,
    "num_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "out_hidden_size": TEXT["hidden_size"],
    "patch_size": PATCH,
    "image_size": 64,
}


def glm4v(folder: Path) -> Path:
    """64 x 48 pixels become 4 x 3 tokens."""
    return _save(Glm4vForConditionalGeneration, Glm4vConfig, TEXT | {"rope_parameters": ROPE}, folder)


def glm4v_moe(folder: Path) -> Path:
    return _save(Glm4vMoeForConditionalGeneration, Glm4vMoeConfig, TEXT | EXPERTS, folder)


def _save(model_class: Any, config_class: Any, text: dict[str, Any], folder: Path) -> Path:
    tokenizer = tokens.llama3(SPECIAL, bos=None, eos="<|user|>", pad="<|endoftext|>")
    config = config_class(
        text_config=text | tokens.special_ids(tokenizer), vision_config=VISION, **_special_ids(tokenizer)
    )
    sizes = {"patch_size": PATCH, "merge_size": 2, "temporal_patch_size": 2, "size": SIZE}
    processor = Glm4vProcessor(
        Glm4vImageProcessor(**sizes), tokenizer, Glm4vVideoProcessor(**sizes), chat_template=templates.GLM
    )
    return weights.save(model_class, config, processor, folder)


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    return {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in IMAGE.items()}
