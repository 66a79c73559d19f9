"""Tiny Gemma3 (sliding windows, attention both ways within an image) and PaliGemma (both ways within the prompt)."""

from pathlib import Path

from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Gemma3TextConfig,
    Gemma4AudioFeatureExtractor,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4ImageProcessor,
    Gemma4Processor,
    Gemma4TextConfig,
    Gemma4VideoProcessor,
    Gemma4VisionConfig,
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    SiglipImageProcessor,
    SiglipVisionConfig,
)
from transformers.models.paligemma.processing_paligemma import EXTRA_TOKENS

from tiny import templates, tokens, weights

VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 8,
    "vision_use_head": False,
}


def gemma3(folder: Path) -> Path:
    """16 vision tokens and windows of 6: a sliding layer sees neither the whole image nor, from the question, any."""
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    extra = ["<start_of_turn>", "<end_of_turn>", *named.values()]
    tokenizer = tokens.gemma(extra, model_specific_special_tokens=named)
    special = {name: tokenizer.convert_tokens_to_ids(token) for name, token in named.items()}
    text = Gemma3TextConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=6,
        layer_types=["sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"],
        max_position_embeddings=1024,
        **tokens.special_ids(tokenizer),
    )
    config = Gemma3Config(
        text_config=text,
        vision_config=SiglipVisionConfig(**VISION, image_size=64),
        mm_tokens_per_image=16,
        image_token_index=special["image_token"],
        boi_token_index=special["boi_token"],
        eoi_token_index=special["eoi_token"],
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")],
    )
    images = Gemma3ImageProcessor(size={"height": 64, "width": 64})
    processor = Gemma3Processor(images, tokenizer, chat_template=templates.GEMMA3, image_seq_length=16)
    return weights.save(Gemma3ForConditionalGeneration, config, processor, folder)


def paligemma(folder: Path, chat_template: str | None = templates.PALIGEMMA) -> Path:
    """16 vision tokens. Published checkpoints have no chat template; this one has, `paligemma_plain` has none."""
    tokenizer = tokens.gemma(["<image>", *EXTRA_TOKENS])
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    text = GemmaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=1024,
        **tokens.special_ids(tokenizer),
    )
    config = PaliGemmaConfig(
        text_config=text,
        vision_config=SiglipVisionConfig(**VISION, image_size=32),
        image_token_index=image_token,
        projection_dim=32,
        hidden_size=32,
        vocab_size=len(tokenizer),
    )
    images = SiglipImageProcessor(size={"height": 32, "width": 32}, image_seq_length=16)
    processor = PaliGemmaProcessor(images, tokenizer, chat_template=chat_template)
    return weights.save(PaliGemmaForConditionalGeneration, config, processor, folder)


def gemma4(folder: Path, shared: int = 0, per_layer: int = 0) -> Path:
    """Sliding and full layers with heads of two sizes; `shared` layers use the keys and values of earlier ones."""
    named = {
        "image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>", "audio_token": "<|audio|>",
        "boa_token": "<|audio>", "eoa_token": "<audio|>",
    }  # fmt: skip
    tokenizer = tokens.gemma(["<|turn>", "<turn|>", "<|video|>", *named.values()], model_specific_special_tokens=named)
    special = {name: tokenizer.convert_tokens_to_ids(token) for name, token in named.items()}
    text = Gemma4TextConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        global_head_dim=16,
        sliding_window=20,
        layer_types=["sliding_attention", "full_attention"] * 2,
        num_kv_shared_layers=shared,
        hidden_size_per_layer_input=per_layer,
        vocab_size_per_layer_input=len(tokenizer),
        use_bidirectional_attention="vision",
        final_logit_softcapping=30.0,
        max_position_embeddings=1024,
        **tokens.special_ids(tokenizer),
    )
    config = Gemma4Config(
        text_config=text,
        vision_config=Gemma4VisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=16,
            patch_size=4,
            pooling_kernel_size=2,
            position_embedding_size=256,
        ),
        audio_config=None,
        image_token_id=special["image_token"],
        boi_token_id=special["boi_token"],
        eoi_token_id=special["eoi_token"],
        audio_token_id=special["audio_token"],
        video_token_id=tokenizer.convert_tokens_to_ids("<|video|>"),
        boa_token_id=special["boa_token"],
    )
    images = Gemma4ImageProcessor(patch_size=4, pooling_kernel_size=2, max_soft_tokens=70)
    videos = Gemma4VideoProcessor(patch_size=4, pooling_kernel_size=2, max_soft_tokens=70)
    processor = Gemma4Processor(
        Gemma4AudioFeatureExtractor(), images, tokenizer, videos, chat_template=templates.GEMMA4, image_seq_length=70
    )
    return weights.save(Gemma4ForConditionalGeneration, config, processor, folder)


def gemma4_shared(folder: Path) -> Path:
    """As the small ones (E2B, E4B): shared layers and embeddings for each layer."""
    return gemma4(folder, shared=2, per_layer=8)
