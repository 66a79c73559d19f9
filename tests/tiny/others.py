"""What a user may give and is told why it cannot be used: cross-attention, text only, no chat template."""

from pathlib import Path

from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaImageProcessor,
    MllamaProcessor,
)

from tiny import templates, tokens, weights
from tiny.gemma import paligemma
from tiny.llava import llava

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}


def mllama(folder: Path) -> Path:
    """Llama 3.2 Vision: layers 1 and 3 attend to the image outside the sequence, where one token stands for it."""
    special = [
        "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|start_header_id|>", "<|end_header_id|>",
        "<|eot_id|>", "<|python_tag|>", "<|image|>",
    ]  # fmt: skip
    tokenizer = tokens.llama3(special, eos="<|eot_id|>", pad="<|finetune_right_pad_id|>")
    config = MllamaConfig(
        text_config=TEXT
        | tokens.special_ids(tokenizer)
        | {
            "cross_attention_layers": [1, 3],
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
            "intermediate_layers_indices": [0],
            "vision_output_dim": 64,  # the last layer's states beside those of the intermediate layers
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<|image|>"),
    )
    images = MllamaImageProcessor(size={"height": 32, "width": 32}, max_image_tiles=4)
    processor = MllamaProcessor(images, tokenizer, chat_template=templates.MLLAMA)
    return weights.save(MllamaForConditionalGeneration, config, processor, folder)


def llama_text(folder: Path) -> Path:
    """A language model without vision, with its tokenizer."""
    tokenizer = tokens.llama(extra=["<pad>"])
    tokenizer.chat_template = templates.LLAMA
    config = LlamaConfig(**TEXT, **tokens.special_ids(tokenizer))
    return weights.save(LlamaForCausalLM, config, tokenizer, folder)


def llava_plain(folder: Path) -> Path:
    """LLaVA-1.5 saved without a chat template."""
    return llava(folder, chat_template=None)


def paligemma_plain(folder: Path) -> Path:
    """PaliGemma as it is published: without a chat template."""
    return paligemma(folder, chat_template=None)
