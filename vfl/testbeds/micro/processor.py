"""The embedded model's processor: the real Qwen2.5-VL one, with a byte-level tokenizer learnt from the questions."""

import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen2_5_VLProcessor, Qwen2Tokenizer, Qwen2VLImageProcessor, Qwen2VLVideoProcessor
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from vfl.probes import micro_limits as style
from vfl.testbeds.micro.questions import all_questions

PATCH, MERGE = 8, 2
IMAGE_TOKEN = "<|image_pad|>"
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    IMAGE_TOKEN, "<|video_pad|>",
)  # fmt: skip
# As Qwen2.5-VL's, less the default system prompt and the numbering of pictures: tokens that carry nothing here.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer() -> Qwen2Tokenizer:
    """Byte-level BPE with merges from the questions: their words are single tokens, capital letters stay letters."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    learner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, min_frequency=1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    # Capitals stand only in words such as "Answer", so no merge joins the letters of a word in capitals. Each word also
    # counts by itself after a space, so that it becomes one token wherever it stands.
    words = [word for question in all_questions() for word in question.split()]
    learner.train_from_iterator([*(f" {word}" for word in words), *all_questions(), "user", "assistant"], trainer)
    vocabulary, merges = _parts(learner)
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary, merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=1024
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    # One token a number: the answers hold box coordinates, and Qwen's splitter would cut them into digits.
    numbers = [str(n) for n in range(10, style.SIZE + 1)] + [f" {n}" for n in range(style.SIZE + 1)]
    tokenizer.add_tokens([AddedToken(number, normalized=False) for number in numbers])
    return tokenizer


def build_processor() -> Qwen2_5_VLProcessor:
    """Tokenizer, image processor (patch 8, merge 2; micro images keep their size) and chat template."""
    pixels = style.SIZE * style.SIZE
    tokenizer = build_tokenizer()
    sizes = {"patch_size": PATCH, "merge_size": MERGE, "min_pixels": pixels, "max_pixels": pixels}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**sizes),
        video_processor=Qwen2VLVideoProcessor(**sizes),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )


def _parts(tokenizer: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a learnt BPE."""
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]
