"""A Qwen2.5-VL of the real classes with the depth and the proportions of the 7B model, random weights, and one row."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from vfl.errors import InputError
from vfl.loading.load import DTYPES

PATCH = 14
MERGE = 2  # patches along each side of a vision token
WIDTH_7B = 3584
TEMPLATE = (
    "{% for message in messages %}<|im_start|> {{ message['role'] }} {% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|> {% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    " <|im_end|> {% endfor %}{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
PADS = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
MARKERS = [*SPECIAL, *PADS.values(), "<unk>", "user", "assistant"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of the model and of the row. Depths are the 7B model's: 28 decoder layers, a tower of 32.

    Attributes:
        width: of the decoder (7B: 3584); MLPs, tower, vocabulary and the rank of LoRA follow as in the 7B model.
        heads: query heads of the decoder, seven for each key-value head.
        vision_heads: heads of the tower.
        vision_tokens: a square number; each is made of two by two patches.
        question: words of the prompt.
        answer: words of the answer, the only ones in the loss.
    """

    width: int = 448
    heads: int = 28
    vision_heads: int = 8
    vision_tokens: int = 576
    question: int = 60
    answer: int = 60

    def __post_init__(self) -> None:
        if math.isqrt(self.vision_tokens) ** 2 != self.vision_tokens:
            raise InputError(
                f"{self.vision_tokens} vision tokens are no square of patches. Give a square, such as 576 or 1024."
            )
        if self.width % (2 * self.heads) or self.width // self.heads < 8 or self.heads % 7:
            raise InputError(
                f"A width of {self.width} does not give {self.heads} heads, in groups of seven, of an even size of at "
                "least 8. Take a multiple of 224."
            )
        if self.vision_width % (4 * self.vision_heads):
            raise InputError(
                f"A tower of width {self.vision_width} does not give {self.vision_heads} heads of a size that divides "
                "by 4. Take a multiple of 448."
            )

    @property
    def vision_width(self) -> int:
        """Of the tower: 1280 in the 7B model."""
        return self.scaled(1280)

    @property
    def rank(self) -> int:
        """Of LoRA: 64 in the 7B model, so that the adapter keeps its share of the operations."""
        return max(1, self.scaled(64))

    def scaled(self, size: int) -> int:
        """A size of the 7B model at this width."""
        return size * self.width // WIDTH_7B


SHAPE = Shape()
FULL_SHAPE = Shape(width=WIDTH_7B, vision_heads=16)
SMALL_SHAPE = Shape(width=112, heads=14, vision_heads=2, vision_tokens=64, question=8, answer=8)


def build(shape: Shape, device: str, dtype: str) -> Qwen2_5_VLForConditionalGeneration:
    """The model with random weights, the same on each call."""
    head = shape.width // shape.heads
    time, height = head // 8, (head // 2 - head // 8) // 2
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": shape.width,
            "intermediate_size": shape.scaled(18944),
            "num_hidden_layers": 28,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.heads // 7,
            "vocab_size": _vocabulary(shape),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [time, height, head // 2 - time - height],
            },
            "bos_token_id": 0,
            "eos_token_id": MARKERS.index("<|im_end|>"),
            "pad_token_id": 0,
        },
        vision_config={
            "depth": 32,
            "hidden_size": shape.vision_width,
            "intermediate_size": shape.scaled(3420),
            "num_heads": shape.vision_heads,
            "out_hidden_size": shape.width,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        image_token_id=MARKERS.index("<|image_pad|>"),
        video_token_id=MARKERS.index("<|video_pad|>"),
        vision_start_token_id=MARKERS.index("<|vision_start|>"),
        vision_end_token_id=MARKERS.index("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        return Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=DTYPES[dtype], attn_implementation="sdpa")


def processor(shape: Shape) -> Qwen2_5_VLProcessor:
    """A word a token."""
    words = MARKERS + [f"w{index}" for index in range(len(MARKERS), _vocabulary(shape))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL,
        extra_special_tokens=PADS,
    )
    size = {"shortest_edge": (PATCH * MERGE) ** 2, "longest_edge": 2**14 * (PATCH * MERGE) ** 2}
    sizes: dict[str, Any] = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 2, "size": size}
    images, videos = Qwen2VLImageProcessor(**sizes), Qwen2VLVideoProcessor(**sizes)
    return Qwen2_5_VLProcessor(images, fast, videos, chat_template=TEMPLATE)


def row(shape: Shape, seed: int = 0) -> dict[str, Any]:
    """A picture of random blocks, a question and an answer of random words, as TRL reads them."""
    rng = np.random.default_rng(seed)
    side = math.isqrt(shape.vision_tokens)
    blocks = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    picture = Image.fromarray(blocks.repeat(PATCH * MERGE, axis=0).repeat(PATCH * MERGE, axis=1))
    words = [f"w{n}" for n in rng.integers(len(MARKERS), _vocabulary(shape), shape.question + shape.answer)]
    return {
        "images": [picture],
        "prompt": [{"role": "user", "content": " ".join(words[: shape.question])}],
        "completion": [{"role": "assistant", "content": " ".join(words[shape.question :])}],
    }


def _vocabulary(shape: Shape) -> int:
    return shape.scaled(152064)
