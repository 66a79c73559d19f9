"""Tiny Qwen2-Audio: a Whisper-like encoder over a second of mel frames, in front of a Qwen2 decoder."""

from pathlib import Path

from transformers import (
    Qwen2AudioConfig,
    Qwen2AudioEncoderConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Config,
    WhisperFeatureExtractor,
)

from tiny import templates, tokens, weights

MELS = 16
SECONDS = 1  # that the encoder takes: 100 frames, 50 positions, at most 25 tokens
SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>",
]  # fmt: skip


def qwen2_audio(folder: Path) -> Path:
    """0.64 seconds give 16 audio tokens."""
    tokenizer = tokens.qwen(SPECIAL, extra_special_tokens=SPECIAL)
    config = Qwen2AudioConfig(
        audio_config=Qwen2AudioEncoderConfig(
            num_mel_bins=MELS,
            encoder_layers=2,
            encoder_attention_heads=2,
            encoder_ffn_dim=48,
            d_model=32,
            max_source_positions=50 * SECONDS,
        ),
        text_config=Qwen2Config(
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=5,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            **tokens.special_ids(tokenizer),
        ),
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    processor = Qwen2AudioProcessor(
        WhisperFeatureExtractor(feature_size=MELS, chunk_length=SECONDS), tokenizer, chat_template=templates.QWEN_AUDIO
    )
    return weights.save(Qwen2AudioForConditionalGeneration, config, processor, folder)
