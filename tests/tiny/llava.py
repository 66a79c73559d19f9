"""Tiny LLaVA-1.5, LLaVA-NeXT (any-resolution tiles with newline features) and LLaVA-OneVision (the same on SigLIP)."""

from pathlib import Path

from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    MistralConfig,
    Qwen2Config,
    SiglipVisionConfig,
)

from tiny import templates, tokens, weights

IMAGE = 32  # pixels of the square that the vision tower sees
# Height, width. A wide picture is padded in the square grid, and the padding's features are cut off again.
GRIDS = [[64, 32], [64, 64]]
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "max_position_embeddings": 1024,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": IMAGE,
}


def llava(folder: Path, chat_template: str | None = templates.LLAVA) -> Path:
    """16 vision tokens: the 4 x 4 patches of the last vision layer but one, without its class token."""
    tokenizer = tokens.llama(extra=["<pad>", "<image>"])
    config = LlavaConfig(
        text_config=LlamaConfig(**TEXT, num_key_value_heads=4, **tokens.special_ids(tokenizer)),
        vision_config=CLIPVisionConfig(**VISION, patch_size=8, projection_dim=32),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    images = CLIPImageProcessor(size={"shortest_edge": IMAGE}, crop_size={"height": IMAGE, "width": IMAGE})
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template,
    )
    return weights.save(LlavaForConditionalGeneration, config, processor, folder)


def llava_next(folder: Path) -> Path:
    """A Mistral decoder with grouped queries, as in v1.6-mistral; 64 x 48 pixels give 4 + 16 + 4 vision tokens."""
    tokenizer = tokens.llama(extra=["<pad>", "<image>"])
    config = LlavaNextConfig(
        text_config=MistralConfig(**TEXT, num_key_value_heads=2, sliding_window=None, **tokens.special_ids(tokenizer)),
        vision_config=CLIPVisionConfig(**VISION, patch_size=16, projection_dim=32),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=GRIDS,
        image_seq_length=4,
    )
    images = LlavaNextImageProcessor(
        size={"shortest_edge": IMAGE}, crop_size={"height": IMAGE, "width": IMAGE}, image_grid_pinpoints=GRIDS
    )
    processor = LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=templates.LLAVA_NEXT,
    )
    return weights.save(LlavaNextForConditionalGeneration, config, processor, folder)


def llava_onevision(folder: Path) -> Path:
    """SigLIP without a class token and a Qwen2 decoder; 64 x 48 pixels give 4 + 16 + 4 vision tokens."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
    tokenizer = tokens.qwen(special, extra_special_tokens=special)
    config = LlavaOnevisionConfig(
        text_config=Qwen2Config(**TEXT, num_key_value_heads=2, **tokens.special_ids(tokenizer)),
        vision_config=SiglipVisionConfig(**VISION, patch_size=16, vision_use_head=False),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=GRIDS,
    )
    size = {"height": IMAGE, "width": IMAGE}
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=GRIDS),
        tokenizer,
        LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=templates.LLAVA_ONEVISION,
    )
    return weights.save(LlavaOnevisionForConditionalGeneration, config, processor, folder)
