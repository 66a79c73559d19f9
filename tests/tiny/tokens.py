"""The families' real tokenizer classes over small vocabularies made here from a few sentences."""

import json
import string
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GemmaTokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
)

NUM_MERGES = 200
BYTES = [f"<0x{value:02X}>" for value in range(256)]
CORPUS = (
    "Is there a cat in the image? Answer yes or no. Is there an apple in the image? yes no yes no",
    "How many cubes are there in the image? How many balls? How many cylinders? Answer with a number.",
    "Where is the dog? Where is the car? Answer with the box in pixels. left right above below",
    "What text can you read in the image? Answer with the text only. What colour is the bird?",
    "You are a helpful assistant. user assistant User: Assistant: model system red green blue yellow",
    "USER: ASSISTANT: USER: ASSISTANT: USER: ASSISTANT: [INST] [/INST] [INST] [/INST] [INST] [/INST]",
    "0 1 2 3 4 5 6 7 8 9 10 16 24 32 48 64 [0, 16, 32, 48] [8, 24, 40, 56]",
)

# (vocabulary: token -> id, merges: pairs of tokens in order of priority)
Vocabulary = tuple[dict[str, int], list[tuple[str, str]]]


def qwen(special: list[str], **options: Any) -> Qwen2Tokenizer:
    """Byte-level tokens, then `special`, which hold <|endoftext|> and <|im_end|>."""
    vocabulary, merges = byte_level(special)
    return Qwen2Tokenizer(vocabulary, merges, eos_token="<|im_end|>", **options)


def llama(extra: list[str]) -> LlamaTokenizer:
    """Byte fallback behind <unk>, <s>, </s>; `extra` come last, the first of them is for padding."""
    vocabulary, merges = byte_fallback(["<unk>", "<s>", "</s>"])
    vocabulary |= {token: len(vocabulary) + index for index, token in enumerate(extra)}
    return LlamaTokenizer(vocabulary, merges, pad_token=extra[0], extra_special_tokens=extra, add_bos_token=True)


def gemma(extra: list[str], **options: Any) -> GemmaTokenizer:
    """Byte fallback behind <pad>, <eos>, <bos>, <unk>, <mask>; `extra` come last."""
    vocabulary, merges = byte_fallback(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
    vocabulary |= {token: len(vocabulary) + index for index, token in enumerate(extra)}
    return GemmaTokenizer(vocabulary, merges, extra_special_tokens=extra, add_bos_token=True, **options)


def llama3(
    special: list[str], eos: str, pad: str, bos: str | None = "<|begin_of_text|>", **options: Any
) -> PreTrainedTokenizerFast:
    """Byte-level tokens, then `special`, which hold the others: for families without a tokenizer class of their own."""
    vocabulary, merges = byte_level(special)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        extra_special_tokens=special,
        model_input_names=["input_ids", "attention_mask"],
        **options,
    )


def special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int | None]:
    """What a text config has to agree on with its tokenizer."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {name: getattr(tokenizer, name) for name in names} | {"vocab_size": len(tokenizer)}


def byte_level(special: list[str]) -> Vocabulary:
    """The 256 bytes and the merges of a GPT-2-like tokenizer, then special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    vocabulary, merges = _train(tokenizer, special=[], alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    return vocabulary | {token: len(vocabulary) + index for index, token in enumerate(special)}, merges


def byte_fallback(special: list[str]) -> Vocabulary:
    """Special tokens, bytes, characters and merges, in the order of SentencePiece vocabularies."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    alphabet = sorted(string.digits + string.ascii_letters + string.punctuation + "▁\n")
    vocabulary, merges = _train(tokenizer, special=special + BYTES, alphabet=alphabet)
    # Gemma keeps the blank line around an image as one token.
    return vocabulary | {"\n\n": len(vocabulary)}, [*merges, ("\n", "\n")]


def _train(tokenizer: Tokenizer, special: list[str], alphabet: list[str]) -> Vocabulary:
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + len(alphabet) + NUM_MERGES,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return dict(model["vocab"]), [(left, right) for left, right in model["merges"]]
