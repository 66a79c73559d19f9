"""Tiny Mistral 3: a Pixtral tower at the picture's own proportions, with a break token behind each row of the grid."""

from pathlib import Path

from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralImageProcessor,
    PixtralProcessor,
    PixtralVisionConfig,
)

from tiny import templates, tokens, weights

PATCH, MERGE = 8, 2
SPECIAL = ["<s>", "</s>", "<pad>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"]


def mistral3(folder: Path) -> Path:
    """64 x 48 pixels become 4 x 3 tokens; the break tokens between the rows belong to the span."""
    tokenizer = tokens.llama3(SPECIAL, bos="<s>", eos="</s>", pad="<pad>")
    config = Mistral3Config(
        text_config=MistralConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=5,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            sliding_window=None,
            max_position_embeddings=1024,
            tie_word_embeddings=False,
            **tokens.special_ids(tokenizer),
        ),
        vision_config=PixtralVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=64,
            patch_size=PATCH,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=MERGE,
        tie_word_embeddings=False,
    )
    images = PixtralImageProcessor(size={"longest_edge": 64}, patch_size=PATCH)
    processor = PixtralProcessor(
        images, tokenizer, patch_size=PATCH, spatial_merge_size=MERGE, chat_template=templates.MISTRAL3
    )
    return weights.save(Mistral3ForConditionalGeneration, config, processor, folder)
