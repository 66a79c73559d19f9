"""Tiny Video-LLaVA: LLaVA with a tower for images and one for videos, of which the first is used here."""

from pathlib import Path

from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
    VideoLlavaImageProcessor,
    VideoLlavaProcessor,
    VideoLlavaVideoProcessor,
)

from tiny import templates, tokens, weights
from tiny.llava import IMAGE, TEXT, VISION


def video_llava(folder: Path) -> Path:
    """17 vision tokens: 4 x 4 patches and the class token."""
    tokenizer = tokens.llama(extra=["<pad>", "<image>", "<video>"])
    config = VideoLlavaConfig(
        text_config=LlamaConfig(**TEXT, num_key_value_heads=4, **tokens.special_ids(tokenizer)),
        vision_config=CLIPVisionConfig(**VISION, patch_size=8, projection_dim=32),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_seq_length=16,
    )
    sizes = {"size": {"shortest_edge": IMAGE}, "crop_size": {"height": IMAGE, "width": IMAGE}}
    processor = VideoLlavaProcessor(
        VideoLlavaImageProcessor(**sizes),
        VideoLlavaVideoProcessor(**sizes),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=templates.LLAVA,
    )
    return weights.save(VideoLlavaForConditionalGeneration, config, processor, folder)
