"""The embedded model's configuration: the real Qwen2.5-VL classes, small."""

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

from vfl.testbeds.micro.config import ModelConfig
from vfl.testbeds.micro.processor import IMAGE_TOKEN, MERGE, PATCH


def build_model(settings: ModelConfig, tokenizer: Qwen2Tokenizer, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """A freshly initialised model; equal seeds give equal weights."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in tokenizer.get_vocab()}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": settings.width,
            "intermediate_size": settings.feed_forward,
            "num_hidden_layers": settings.layers,
            "num_attention_heads": settings.heads,
            "num_key_value_heads": settings.kv_heads,
            "max_position_embeddings": 1024,
            "use_sliding_window": False,
            "tie_word_embeddings": True,
            # Much smaller than Qwen's million, for positions are below a hundred. A base of 10, where no frequency is
            # slow enough to match by content, stalled at grounding for 3,000 steps; the auxiliary losses on naming
            # and finding came with the change, so which of the two helped was not separated.
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": settings.rope_theta,
                "mrope_section": list(settings.mrope_section),
            },
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": settings.vision_depth,
            "hidden_size": settings.vision_width,
            "intermediate_size": settings.vision_feed_forward,
            "num_heads": settings.vision_heads,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "window_size": 112,
            "out_hidden_size": settings.width,
            "fullatt_block_indexes": list(range(settings.vision_depth)),
        },
        image_token_id=ids[IMAGE_TOKEN],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    return model
