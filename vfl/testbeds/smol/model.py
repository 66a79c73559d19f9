"""The real SmolVLM classes around the language model: a small vision tower and the connector, freshly initialised."""

from pathlib import Path

import torch
from transformers import (
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMVisionConfig,
)

from vfl.probes import micro_limits as style
from vfl.testbeds.smol.config import TowerConfig
from vfl.testbeds.smol.processor import IMAGE, MERGE, PATCH, SPECIAL


def build_model(
    language: Path | str, tokenizer: PreTrainedTokenizerBase, tower: TowerConfig, seed: int
) -> SmolVLMForConditionalGeneration:
    """The language model's weights as they are; equal seeds give equal tower, connector and new embedding rows."""
    decoder = LlamaForCausalLM.from_pretrained(language, dtype=torch.float32)
    text = {**decoder.config.to_dict(), "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    config = SmolVLMConfig(
        text_config=text,
        vision_config=SmolVLMVisionConfig(
            hidden_size=tower.width,
            intermediate_size=tower.feed_forward,
            num_hidden_layers=tower.depth,
            num_attention_heads=tower.heads,
            image_size=style.SIZE,
            patch_size=PATCH,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        scale_factor=MERGE,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    # Written out: on a CPU, at these sizes, the fused kernel is several times slower backward.
    config._attn_implementation = "eager"
    model = SmolVLMForConditionalGeneration(config)
    rows = decoder.get_input_embeddings().weight.data
    state = {name.removeprefix("model."): value for name, value in decoder.model.state_dict().items()}
    # New rows stand in the middle of the old ones, so that no output is drawn to them.
    new = rows.mean(0, keepdim=True).expand(len(tokenizer) - len(rows), -1)
    assert len(new) == len(SPECIAL), (len(new), SPECIAL)
    state["embed_tokens.weight"] = torch.cat([rows, new])
    model.model.text_model.load_state_dict(state)
    model.tie_weights()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model
