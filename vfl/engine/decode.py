"""Greedy answers: one loop for rows that we step ourselves, and Transformers' `generate` made greedy for whole batches.

Left-padded batches go through `generate`, which places what padding moves (positions, masks) as each family needs it.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig

from vfl.models.vlm import VLM


def greedy_answers(
    logits: torch.Tensor,
    step: Callable[[torch.Tensor, int], torch.Tensor],
    limit: int,
    ends: Collection[int],
    narrow: Callable[[list[int]], None] | None = None,
) -> list[list[int]]:
    """Greedy answers of R rows, without the end token.

    Args:
        logits: (R, vocabulary), which predict the first token.
        step: called as `step(tokens, n)` with each row's n-th token (R,), from 0; gives the logits of the next. Rows
            that have ended go on to be stepped, and what they say is not kept.
        limit: most tokens of an answer.
        ends: tokens that end one.
        narrow: called with the places of the rows that still run, once half of those that are stepped have ended;
            from then on these alone are stepped.
    """
    answers: list[list[int]] = [[] for _ in logits]
    rows = list(range(len(answers)))  # that are stepped
    running = [True] * len(answers)
    for number in range(limit):
        chosen = logits.argmax(dim=-1)
        for row, token in zip(rows, chosen.tolist(), strict=True):
            running[row] = running[row] and token not in ends
            if running[row]:
                answers[row].append(token)
        left = [place for place, row in enumerate(rows) if running[row]]
        if number + 1 == limit or not left:
            break
        if narrow is not None and 2 * len(left) <= len(rows):
            narrow(left)
            rows, chosen = [rows[place] for place in left], chosen[left]
        logits = step(chosen, number)
    return answers


@torch.no_grad()
def generate(
    vlm: VLM,
    inputs: Mapping[str, Any],
    limit: int,
    *,
    cache: DynamicCache | None = None,
    exactly: bool = False,
) -> list[list[int]]:
    """Greedy answers of a batch by Transformers' own `generate`, without the end token.

    Args:
        vlm: the model.
        inputs: what its processor made, on its device; `input_ids` (B, T), padded on the left.
        limit: most tokens of an answer.
        cache: keys and values to use and leave; by default fresh ones.
        exactly: go on to the limit whatever the model says (for timing).
    """
    extra: dict[str, Any] = {} if cache is None else {"past_key_values": cache}
    if exactly:
        extra["min_new_tokens"] = limit
    with greedy(vlm):
        output: Any = vlm.model.generate(**inputs, max_new_tokens=limit, do_sample=False, use_cache=True, **extra)
    ends = vlm.end_ids()
    return [until_end(row, ends) for row in output[:, inputs["input_ids"].shape[1] :].tolist()]


@contextmanager
def greedy(vlm: VLM) -> Iterator[GenerationConfig]:
    """The model's generation config replaced by one that decodes greedily and holds nothing else.

    `generate` fills what its caller leaves open from the model's own config, and checkpoints ship penalties and
    sampling parameters there (Qwen2.5-VL a repetition penalty): answers would not be the model's most likely ones.
    """
    ends = sorted(vlm.end_ids())
    pad = vlm.tokenizer.pad_token_id
    before = vlm.model.generation_config
    config = GenerationConfig(eos_token_id=ends or None, pad_token_id=ends[0] if pad is None and ends else pad or 0)
    vlm.model.generation_config = config
    try:
        yield config
    finally:
        vlm.model.generation_config = before


def until_end(ids: Sequence[int], ends: Collection[int]) -> list[int]:
    """The tokens before the first end token."""
    return list(ids[: next((place for place, token in enumerate(ids) if token in ends), len(ids))])
