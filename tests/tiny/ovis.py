"""Tiny Ovis2: visual words from a table of their own, in front of a Qwen2 decoder."""

from pathlib import Path

from transformers import (
    Ovis2Config,
    Ovis2ForConditionalGeneration,
    Ovis2ImageProcessor,
    Ovis2Processor,
    Ovis2VisionConfig,
    Qwen2Config,
)

from tiny import templates, tokens, weights

IMAGE, PATCH = 32, 8
INDICATORS = ["<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<IMG_ATOM>", *INDICATORS]


def ovis2(folder: Path) -> Path:
    """Tiles of 4 tokens with indicators between, which belong to the span."""
    tokenizer = tokens.qwen(SPECIAL, extra_special_tokens=SPECIAL)
    special = tokens.special_ids(tokenizer)
    config = Ovis2Config(
        text_config=Qwen2Config(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=5,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            tie_word_embeddings=False,
            **special,
        ),
        vision_config=Ovis2VisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=IMAGE,
            patch_size=PATCH,
            vocab_size=64,
            hidden_stride=2,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_ATOM>"),
        visual_indicator_token_ids=tokenizer.convert_tokens_to_ids(INDICATORS),
        vocab_size=len(tokenizer),
        hidden_size=32,
        tie_word_embeddings=False,
    )
    images = Ovis2ImageProcessor(
        size={"height": IMAGE, "width": IMAGE}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    processor = Ovis2Processor(images, tokenizer, image_seq_length=4, chat_template=templates.OVIS2)
    return weights.save(Ovis2ForConditionalGeneration, config, processor, folder)
