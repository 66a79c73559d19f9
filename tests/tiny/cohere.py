"""Tiny Aya Vision and Command A Vision: SigLIP tiles behind a Cohere2 decoder with sliding windows."""

from pathlib import Path

from transformers import (
    AyaVisionConfig,
    AyaVisionForConditionalGeneration,
    AyaVisionProcessor,
    Cohere2Config,
    Cohere2VisionConfig,
    Cohere2VisionForConditionalGeneration,
    Cohere2VisionImageProcessor,
    Cohere2VisionProcessor,
    GotOcr2ImageProcessor,
    PreTrainedTokenizerBase,
    SiglipVisionConfig,
)

from tiny import templates, tokens, weights

IMAGE, PATCH = 32, 8  # pixels of a tile: 4 x 4 patches, shuffled into 2 x 2 tokens
BASE = ["<BOS_TOKEN>", "<EOS_TOKEN>", "<PAD>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"]
BASE += ["<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|START_OF_IMG|>", "<|END_OF_IMG|>"]
BASE += ["<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "<image>"]
AYA = [*BASE, "TILE_GLOBAL", *(f"TILE_{number}" for number in range(1, 13))]
NAMED = {
    "boi_token": "<|START_OF_IMG|>",
    "eoi_token": "<|END_OF_IMG|>",
    "image_token": "<|IMG_PATCH|>",
    "img_line_break_token": "<|IMG_LINE_BREAK|>",
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": IMAGE,
    "patch_size": PATCH,
    "vision_use_head": False,
}


def aya_vision(folder: Path) -> Path:
    """64 x 48 pixels become tiles and the whole, with marker text between their tokens."""
    tokenizer = tokens.llama3(AYA, bos="<BOS_TOKEN>", eos="<|END_OF_TURN_TOKEN|>", pad="<PAD>")
    config = AyaVisionConfig(
        text_config=_text(tokenizer),
        vision_config=SiglipVisionConfig(**VISION),
        vision_feature_layer=-1,
        image_token_index=tokenizer.convert_tokens_to_ids("<|IMG_PATCH|>"),
    )
    size = {"height": IMAGE, "width": IMAGE}
    images = GotOcr2ImageProcessor(size=size, crop_to_patches=True, min_patches=1, max_patches=4)
    processor = AyaVisionProcessor(
        images, tokenizer, patch_size=PATCH, img_size=IMAGE, downsample_factor=2, chat_template=templates.AYA_VISION
    )
    return weights.save(AyaVisionForConditionalGeneration, config, processor, folder)


def cohere2_vision(folder: Path) -> Path:
    """Tiles behind one another, each with a break token."""
    tokenizer = tokens.llama3(
        BASE, bos="<BOS_TOKEN>", eos="<|END_OF_TURN_TOKEN|>", pad="<PAD>", model_specific_special_tokens=NAMED
    )
    config = Cohere2VisionConfig(
        text_config=_text(tokenizer),
        vision_config=SiglipVisionConfig(**VISION),
        alignment_intermediate_size=48,
        image_token_id=tokenizer.convert_tokens_to_ids("<|IMG_PATCH|>"),
    )
    images = Cohere2VisionImageProcessor(
        size={"height": IMAGE, "width": IMAGE}, patch_size=2, min_patches=1, max_patches=4
    )
    processor = Cohere2VisionProcessor(images, tokenizer, chat_template=templates.COHERE2_VISION)
    return weights.save(Cohere2VisionForConditionalGeneration, config, processor, folder)


def _text(tokenizer: PreTrainedTokenizerBase) -> Cohere2Config:
    return Cohere2Config(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"],
        max_position_embeddings=1024,
        logit_scale=1.0,
        **tokens.special_ids(tokenizer),
    )
