"""Tiny Idefics3 and SmolVLM: the picture is split into tiles with marker text between their tokens."""

from pathlib import Path

from transformers import (
    GPT2Tokenizer,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    Idefics3VisionConfig,
    LlamaConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
    SmolVLMVisionConfig,
)

from tiny import templates, tokens, weights

IMAGE = 32  # pixels of a tile: 4 x 4 patches, shuffled into 2 x 2 tokens
SIZES = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": IMAGE}}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": IMAGE,
    "patch_size": 8,
}
TILES = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
MARKERS = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]


def idefics3(folder: Path) -> Path:
    """64 x 48 pixels become 2 x 2 tiles and the whole: 20 vision tokens with 9 tokens of marker text between."""
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", *MARKERS, *TILES]
    tokenizer = tokens.llama3(special, eos="<end_of_utterance>", pad="<|finetune_right_pad_id|>")
    config = Idefics3Config(
        text_config=LlamaConfig(**TEXT, **tokens.special_ids(tokenizer)),
        vision_config=Idefics3VisionConfig(**VISION),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        scale_factor=2,
    )
    processor = Idefics3Processor(
        Idefics3ImageProcessor(**SIZES), tokenizer, image_seq_len=4, chat_template=templates.IDEFICS3
    )
    return weights.save(Idefics3ForConditionalGeneration, config, processor, folder)


def smolvlm(folder: Path) -> Path:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *MARKERS, *TILES]
    vocabulary, merges = tokens.byte_level(special)
    tokenizer = GPT2Tokenizer(
        vocabulary,
        merges,
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
        extra_special_tokens=special,
    )
    config = SmolVLMConfig(
        text_config=LlamaConfig(**TEXT, **tokens.special_ids(tokenizer)),
        vision_config=SmolVLMVisionConfig(**VISION),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        scale_factor=2,
    )
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(**SIZES),
        tokenizer,
        SmolVLMVideoProcessor(**SIZES),
        image_seq_len=4,
        chat_template=templates.SMOLVLM,
    )
    return weights.save(SmolVLMForConditionalGeneration, config, processor, folder)
