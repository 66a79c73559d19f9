"""Tiny Llama 4: tiles with separators, chunked attention, layers without positions, experts."""

from pathlib import Path

from transformers import (
    Llama4Config,
    Llama4ForConditionalGeneration,
    Llama4ImageProcessor,
    Llama4Processor,
    Llama4TextConfig,
    Llama4VisionConfig,
)

from tiny import templates, tokens, weights

IMAGE, PATCH = 32, 8
SPECIAL = [
    "<|begin_of_text|>", "<|end_of_text|>", "<|eot|>", "<|header_start|>", "<|header_end|>", "<|image_start|>",
    "<|image_end|>", "<|image|>", "<|patch|>", "<|tile_x_separator|>", "<|tile_y_separator|>", "<|finetune_right_pad|>",
]  # fmt: skip


def llama4(folder: Path) -> Path:
    """64 x 48 pixels become 2 x 2 tiles of 4 tokens and the whole, with separators between."""
    tokenizer = tokens.llama3(SPECIAL, eos="<|eot|>", pad="<|finetune_right_pad|>")
    config = Llama4Config(
        text_config=Llama4TextConfig(
            hidden_size=32,
            intermediate_size=48,
            intermediate_size_mlp=64,
            num_hidden_layers=5,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            num_local_experts=2,
            interleave_moe_layer_step=2,
            attention_chunk_size=24,
            floor_scale=16,
            attn_scale=0.5,
            max_position_embeddings=1024,
            **tokens.special_ids(tokenizer),
        ),
        vision_config=Llama4VisionConfig(
            hidden_size=32,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            vision_output_dim=32,
            image_size=IMAGE,
            patch_size=PATCH,
            projector_input_dim=32,
            projector_output_dim=32,
        ),
        boi_token_index=tokenizer.convert_tokens_to_ids("<|image_start|>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<|image_end|>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<|patch|>"),
    )
    images = Llama4ImageProcessor(size={"height": IMAGE, "width": IMAGE}, max_patches=4)
    processor = Llama4Processor(images, tokenizer, patch_size=PATCH, chat_template=templates.LLAMA4)
    return weights.save(Llama4ForConditionalGeneration, config, processor, folder)
