"""The processor: SmolVLM's, with the language model's own tokenizer and the image's tokens added to it."""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from vfl.probes import micro_limits as style

PATCH, MERGE = 8, 2
IMAGE, FAKE, GLOBAL, VIDEO = "<image>", "<fake_token_around_image>", "<global-img>", "<video>"
SPECIAL = (FAKE, IMAGE, GLOBAL, VIDEO)
START, END = "<|im_start|>", "<|im_end|>"
# The language model's own turns (it was tuned on them), less the system prompt: tokens that carry nothing here.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<image>{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CAPITAL_BEFORE_CAPITAL = "[A-Z](?=[A-Z])"


def build_tokenizer(language: Path | str) -> PreTrainedTokenizerBase:
    """The language model's tokenizer; words in capitals are spelt, as digits are in it already.

    A reader of text in pictures has a token a letter then. Other text is cut as before.
    """
    loaded = AutoTokenizer.from_pretrained(language)
    backend: Tokenizer = loaded.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(CAPITAL_BEFORE_CAPITAL), behavior="isolated"), backend.pre_tokenizer]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(json.loads(backend.to_str()))),
        bos_token=START,
        eos_token=END,
        pad_token="<|endoftext|>",
        model_max_length=2048,
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def build_processor(language: Path | str) -> SmolVLMProcessor:
    """Tokenizer, image processor (one tile of 80 x 80, patch 8, 2 x 2 joined) and chat template."""
    side = {"longest_edge": style.SIZE}
    sizes = {"size": side, "max_image_size": side, "do_image_splitting": False}
    return SmolVLMProcessor(
        SmolVLMImageProcessor(**sizes),
        build_tokenizer(language),
        SmolVLMVideoProcessor(size=side, max_image_size=side, do_image_splitting=False),
        image_seq_len=style.GRID**2,
        chat_template=CHAT_TEMPLATE,
    )
