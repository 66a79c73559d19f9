"""Texts that the language model writes itself, and its final hidden states on them: what it must not forget.

A model that learns from pictures alone loses its language: the perplexity of plain text rose fourfold here. No text
corpus comes with the package, and none is needed: the model's own answers and beginnings cover what it can, and its
hidden states say, token by token, what it would have said (Li and Hoiem, Learning without Forgetting, 2016).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import kl_div, log_softmax
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from vfl.testbeds.smol.processor import END, START

TOPICS = (
    "the sea", "bread", "a train journey", "winter", "the moon", "a garden", "music", "old houses", "bees", "rivers",
    "football", "the brain", "money", "a small dog", "rain", "history", "mathematics", "cooking rice", "friendship",
    "a library", "mountains", "electricity", "the heart", "a market", "sleep", "trees", "computers", "painting",
    "a long letter", "the wind", "teachers", "bicycles", "coffee", "volcanoes", "the alphabet", "clocks",
)  # fmt: skip
REQUESTS = (
    "Tell me about {}.", "Write one sentence about {}.", "What do people like about {}?", "Name three facts about {}.",
    "Explain {} to a child.", "Write a short poem about {}.", "Why does {} matter?", "Ask me a question about {}.",
    "What is the opposite of {}?", "Which country is known for {}?", "Give two words that go with {}.",
)  # fmt: skip
BEGINNINGS = (
    "When I think of {}, I", "The story begins with {}.", "It is often said that {}", "In this article we look at {}",
    "She had never cared for {} until", "There are many kinds of", "According to the report on {},",
)  # fmt: skip
COUNT, TOKENS, AT_ONCE = 384, 96, 48
TOP_P = 0.95


@dataclass
class OwnTexts:
    """Legend: N texts, T tokens, padded behind each text's length."""

    ids: torch.Tensor  # (N, T)
    lengths: torch.Tensor  # (N,)
    hidden: torch.Tensor  # (N, T, width) float16: the language model's final hidden states

    def text(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(1, t) ids and (1, t, width) hidden states of one text."""
        length = int(self.lengths[number])
        return self.ids[number, :length][None], self.hidden[number, :length][None].float()


def prompts(seed: int) -> list[str]:
    """COUNT beginnings: two thirds in the model's own turns, one third plain."""
    rng = np.random.default_rng([seed, 3])

    def draw() -> Iterator[str]:
        for number in range(COUNT):
            topic = TOPICS[rng.integers(len(TOPICS))]
            if number % 3:
                yield f"{START}user\n{REQUESTS[rng.integers(len(REQUESTS))].format(topic)}{END}\n{START}assistant\n"
            else:
                yield BEGINNINGS[rng.integers(len(BEGINNINGS))].format(topic)

    return list(draw())


def own_texts(path: Path, language: str, tokenizer: PreTrainedTokenizerBase, seed: int) -> OwnTexts:
    """The texts at `path`; written there first where there are none (minutes)."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        save_file(vars(write_texts(language, tokenizer, prompts(seed), seed)), part)
        part.replace(path)
    return OwnTexts(**load_file(path))


@torch.no_grad()
def write_texts(language: str, tokenizer: PreTrainedTokenizerBase, begun: list[str], seed: int) -> OwnTexts:
    """Continue each beginning by sampling, up to TOKENS tokens in all."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = LlamaForCausalLM.from_pretrained(language, dtype=torch.float32).eval().to(device)
    ids = torch.full((len(begun), TOKENS), tokenizer.pad_token_id)
    lengths = torch.zeros(len(begun), dtype=torch.long)
    hidden = torch.zeros(len(begun), TOKENS, model.config.hidden_size, dtype=torch.float16)
    torch.manual_seed(seed)
    by_length = sorted(range(len(begun)), key=lambda number: len(tokenizer(begun[number])["input_ids"]))
    for start in range(0, len(begun), AT_ONCE):
        numbers = by_length[start : start + AT_ONCE]
        inputs = tokenizer(
            [begun[number] for number in numbers], return_tensors="pt", padding=True, padding_side="left"
        ).to(device)
        output = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_length=TOKENS,
            do_sample=True,
            top_p=TOP_P,
            top_k=0,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        for number, row, mask in zip(numbers, output, inputs["attention_mask"], strict=True):
            text = row[int((mask == 0).sum()) :]
            text = text[: _length(text, int(mask.sum()), tokenizer)]
            states = model.model(input_ids=text[None]).last_hidden_state[0].half()
            ids[number, : len(text)], lengths[number] = text.cpu(), len(text)
            hidden[number, : len(text)] = states.cpu()
    return OwnTexts(ids, lengths, hidden)


def _length(text: torch.Tensor, given: int, tokenizer: PreTrainedTokenizerBase) -> int:
    """Up to and with the first end token behind the `given` ones."""
    ends = (text[given:] == tokenizer.eos_token_id).nonzero()
    return given + int(ends[0]) + 1 if len(ends) else len(text)


def distance(theirs: torch.Tensor, ours: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence a token of our next-token distribution from theirs; (1, t, vocabulary) logits."""
    return kl_div(
        log_softmax(ours, -1).flatten(0, 1),
        log_softmax(theirs, -1).flatten(0, 1),
        reduction="batchmean",
        log_target=True,
    )
