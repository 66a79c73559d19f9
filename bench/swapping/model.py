"""A model of LLaVA-1.5's classes and proportions with random weights, its processor, and two prompts to swap."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from vfl.engine.image_cache import slots_of
from vfl.errors import InputError
from vfl.loading.load import DTYPES, wrap
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

PATCH = 14
TEMPLATE = (
    "<s> USER: {% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %} ASSISTANT:"
)
MARKERS = ["<unk>", "<s>", "<pad>", "<image>", "USER:", "ASSISTANT:"]
NUM_TEMPLATE_TOKENS = 3  # <s>, USER: and ASSISTANT:
# Queries and keys above unit variance: attention far from uniform, so that a swapped layer shows in the logits.
SHARPNESS = 1.5


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of the model and of the prompt; everything that is not listed follows from `width` as in LLaVA-1.5-7B.

    Attributes:
        layers: decoder layers.
        width: of the decoder. Its MLP is 2.6875 times as wide; the CLIP tower is a quarter as wide with 24 layers; the
            vocabulary is scaled alike (32,064 at width 4,096), so tower and output head keep their share of a forward.
        heads: attention heads of the decoder, without grouping.
        vision_tokens: a square number of patches.
        text_tokens: prompt tokens that are not vision; two of them stand before the image.
    """

    layers: int = 32
    width: int = 512
    heads: int = 8
    vision_tokens: int = 576
    text_tokens: int = 40

    def __post_init__(self) -> None:
        if math.isqrt(self.vision_tokens) ** 2 != self.vision_tokens:
            raise InputError(
                f"{self.vision_tokens} vision tokens are no square of patches. Give a square, such as 576."
            )
        if self.width % (2 * self.heads) or self.width % 16:
            raise InputError(f"A width of {self.width} does not give {self.heads} heads of even size. Use powers of 2.")
        if self.text_tokens <= NUM_TEMPLATE_TOKENS or self.layers < 2:
            raise InputError("A sweep needs at least 2 layers and 4 text tokens.")

    @property
    def vocabulary(self) -> int:
        """Tokens of the vocabulary."""
        return max(64, 32064 * self.width // 4096)


FULL_SHAPE = Shape(layers=32, width=4096, heads=32)


@dataclass(frozen=True)
class Task:
    """One single-layer sweep: a question on a target image, swapped with a source image.

    Attributes:
        vlm: the model.
        target: the prompt on the target image.
        source: the same question on the source image.
        slots: (V,) positions of the vision tokens in both.
        num_tokens: tokens of each answer.
    """

    vlm: VLM
    target: Encoded
    source: Encoded
    slots: torch.Tensor
    num_tokens: int


@dataclass(frozen=True)
class Answers:
    """What a sweep returns, one row each for: the target, the target swapped at layer 0, 1, ..., the source.

    Attributes:
        logits: (L + 2, vocabulary) that predict the first answer token, on the CPU.
        token_ids: greedy answers.
    """

    logits: torch.Tensor
    token_ids: list[list[int]]


def build(shape: Shape, device: str, dtype: str) -> VLM:
    """The model, its processor and its checks (`vfl.loading.load.wrap`)."""
    tokenizer = _tokenizer(shape)
    side = math.isqrt(shape.vision_tokens) * PATCH
    special = {"bos_token_id": 1, "eos_token_id": None, "pad_token_id": 2}
    config = LlavaConfig(
        text_config=LlamaConfig(
            hidden_size=shape.width,
            intermediate_size=43 * shape.width // 16,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            head_dim=shape.width // shape.heads,
            vocab_size=shape.vocabulary,
            max_position_embeddings=2 * (shape.vision_tokens + shape.text_tokens),
            **special,
        ),
        vision_config=CLIPVisionConfig(
            hidden_size=shape.width // 4,
            intermediate_size=shape.width,
            num_hidden_layers=24,
            num_attention_heads=max(1, shape.width // 256),
            image_size=side,
            patch_size=PATCH,
        ),
        image_token_index=MARKERS.index("<image>"),
        image_seq_length=shape.vision_tokens,
        tie_word_embeddings=False,
    )
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    with torch.device(device):
        model = LlavaForConditionalGeneration._from_config(config, dtype=DTYPES[dtype], attn_implementation="sdpa")
    _randomise(model)
    return wrap(model, processor, model_id="LLaVA-1.5 with random weights")


def task(vlm: VLM, shape: Shape, num_tokens: int) -> Task:
    """A question of random words on two pictures of random blocks."""
    target, source = (vlm.ask(question(shape), picture(shape, seed)) for seed in (1, 2))
    assert target.length == shape.vision_tokens + shape.text_tokens, f"{target.length} tokens in the prompt"
    return Task(vlm, target, source, slots_of(target.spans, vlm.device), num_tokens)


def question(shape: Shape) -> str:
    """Random words, the same on each call."""
    words = np.random.default_rng(0).integers(len(MARKERS), shape.vocabulary, shape.text_tokens - NUM_TEMPLATE_TOKENS)
    return " ".join(f"w{word}" for word in words)


def _tokenizer(shape: Shape) -> PreTrainedTokenizerFast:
    """A word a token. There is no end token: every answer has its full number of tokens."""
    words = MARKERS + [f"w{index}" for index in range(len(MARKERS), shape.vocabulary)]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )


def picture(shape: Shape, seed: int) -> Image.Image:
    """Random blocks, a patch each."""
    grid = math.isqrt(shape.vision_tokens)
    blocks = np.random.default_rng(seed).integers(0, 256, (grid, grid, 3), dtype=np.uint8)
    return Image.fromarray(blocks.repeat(PATCH, axis=0).repeat(PATCH, axis=1))


@torch.no_grad()
def _randomise(model: LlavaForConditionalGeneration) -> None:
    """Every matrix keeps the variance of its input, so that all layers matter alike; the same weights on each call."""
    device = next(model.parameters()).device
    generator = torch.Generator(device=device).manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:  # scales of norms stay one, biases zero
            continue
        spread = 1.0 if "embed_tokens" in name else 1 / math.sqrt(parameter[0].numel())
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            spread *= SHARPNESS
        parameter.normal_(0, spread, generator=generator)
