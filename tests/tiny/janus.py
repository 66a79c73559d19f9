"""Tiny DeepSeek-VL and Janus: a SigLIP-like tower at a fixed size, and a Llama decoder."""

from pathlib import Path

from transformers import (
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    DeepseekVLImageProcessor,
    DeepseekVLProcessor,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusImageProcessor,
    JanusProcessor,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
    SiglipVisionConfig,
)

from tiny import templates, tokens, weights

IMAGE, PATCH = 32, 8  # 4 x 4 tokens
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
}
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": IMAGE,
    "patch_size": PATCH,
}
SPECIAL = ["<|begin_of_sentence|>", "<|end_of_sentence|>", "<|pad|>", "<image_placeholder>"]
NAMED = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}


def deepseek_vl(folder: Path) -> Path:
    """16 vision tokens."""
    tokenizer = tokens.llama3(
        SPECIAL, bos=SPECIAL[0], eos=SPECIAL[1], pad=SPECIAL[2],
        model_specific_special_tokens={"image_token": NAMED["image_token"]},
    )  # fmt: skip
    config = DeepseekVLConfig(
        text_config=LlamaConfig(**TEXT, **tokens.special_ids(tokenizer)),
        vision_config=SiglipVisionConfig(**VISION, intermediate_size=48, vision_use_head=False),
        image_token_id=tokenizer.convert_tokens_to_ids(NAMED["image_token"]),
        tie_word_embeddings=False,
    )
    images = DeepseekVLImageProcessor(size={"height": IMAGE, "width": IMAGE}, min_size=8)
    processor = DeepseekVLProcessor(images, tokenizer, templates.DEEPSEEK_VL, num_image_tokens=16)
    return weights.save(DeepseekVLForConditionalGeneration, config, processor, folder)


def janus(folder: Path) -> Path:
    """16 vision tokens between two markers."""
    special = [*SPECIAL, NAMED["boi_token"], NAMED["eoi_token"]]
    tokenizer = tokens.llama3(
        special, bos=SPECIAL[0], eos=SPECIAL[1], pad=SPECIAL[2], model_specific_special_tokens=NAMED
    )
    config = JanusConfig(
        text_config=LlamaConfig(**TEXT, **tokens.special_ids(tokenizer)),
        vision_config=JanusVisionConfig(
            **VISION, mlp_ratio=1.5, projection_dim=32, num_image_tokens=16, depth=2, hidden_dropout_rate=0.0
        ),
        vq_config=JanusVQVAEConfig(
            num_embeddings=16, base_channels=32, channel_multiplier=[1, 1], latent_channels=8, embed_dim=4,
            num_res_blocks=1, projection_dim=32, image_token_embed_dim=32, num_patches=4,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids(NAMED["image_token"]),
        tie_word_embeddings=False,
    )  # fmt: skip
    images = JanusImageProcessor(size={"height": IMAGE, "width": IMAGE}, min_size=8)
    processor = JanusProcessor(images, tokenizer, templates.DEEPSEEK_VL, num_image_tokens=16)
    return weights.save(JanusForConditionalGeneration, config, processor, folder)
