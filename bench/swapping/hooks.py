"""The same sweep by PyTorch hooks: one full forward per swapped layer, as one writes it without this package.

The swap replaces what `k_proj` and `v_proj` return at the vision tokens (equal positions, so it does not matter that
RoPE comes later). Only the text may read it, so the vision tokens get their own attention output back, which the
unswapped forward recorded: three hooks and not one operation more than a plain forward. The cache of the hooked
forward holds the swapped keys and values, so the answer's further tokens need no hooks. The vision tower runs once per
image and logits are computed for the last position only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from bench.swapping.model import Answers, Task
from vfl.models.encode import Encoded

# Per layer: what k_proj, v_proj and self_attn returned at the vision tokens, each (1, V, d).
Recorded = list[dict[str, torch.Tensor]]
PARTS = ("k_proj", "v_proj", "self_attn")


@torch.no_grad()
def sweep_by_hooks(task: Task) -> Answers:
    """Two unswapped forwards that record, then one forward a layer."""
    model, layers, slots = task.vlm.model, task.vlm.layers, task.slots
    embedded = embed(model, task.source)
    with recording(layers, slots) as source:
        unswapped = answer(model, embedded, task.num_tokens)
    embedded = embed(model, task.target)
    with recording(layers, slots) as target:
        rows = [answer(model, embedded, task.num_tokens)]
    for layer_idx, layer in enumerate(layers):
        edits = {**source[layer_idx], "self_attn": target[layer_idx]["self_attn"]}
        with edited(layer, slots, edits):
            first, cache = prompt_pass(model, embedded, task.num_tokens)
        rows.append(go_on(model, first, cache, task.num_tokens))
    rows.append(unswapped)
    return Answers(torch.cat([logits for logits, _ in rows]), [ids for _, ids in rows])


def embed(model: Any, prompt: Encoded) -> torch.Tensor:
    """(1, T, d) embeddings of the prompt with the image's features in place."""
    embedded: torch.Tensor = model.get_input_embeddings()(prompt.input_ids)
    features = model.get_image_features(pixel_values=prompt.inputs["pixel_values"]).pooler_output
    embedded[prompt.input_ids == model.config.image_token_id] = torch.cat(list(features)).to(embedded.dtype)
    return embedded


def answer(model: Any, embedded: torch.Tensor, num_tokens: int) -> tuple[torch.Tensor, list[int]]:
    """Logits (1, vocabulary) at the end of the prompt, on the CPU, and the greedy answer."""
    first, cache = prompt_pass(model, embedded, num_tokens)
    return go_on(model, first, cache, num_tokens)


def prompt_pass(model: Any, embedded: torch.Tensor, num_tokens: int) -> tuple[torch.Tensor, DynamicCache | None]:
    """The forward over the prompt; a cache only where more than one token is wanted."""
    cache = DynamicCache() if num_tokens > 1 else None
    output = model(inputs_embeds=embedded, past_key_values=cache, use_cache=cache is not None, logits_to_keep=1)
    return output.logits[:, -1], cache


def go_on(
    model: Any, first: torch.Tensor, cache: DynamicCache | None, num_tokens: int
) -> tuple[torch.Tensor, list[int]]:
    """The rest of the answer, a token at a time from the cache."""
    logits, ids = first, [int(first.argmax())]
    while len(ids) < num_tokens:
        last = torch.tensor([ids[-1:]], device=logits.device)
        logits = model(input_ids=last, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
        ids.append(int(logits.argmax()))
    return first.float().cpu(), ids


@contextmanager
def recording(layers: nn.ModuleList, slots: torch.Tensor) -> Iterator[Recorded]:
    """Keep what the three parts of every layer return for the prompt."""
    recorded: Recorded = [{} for _ in layers]
    handles = []

    def keep(layer_idx: int, part: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            tensor = output if isinstance(output, torch.Tensor) else output[0]
            if part not in recorded[layer_idx]:  # the answer's further tokens pass here too
                recorded[layer_idx][part] = tensor[:, slots]

        return hook

    try:
        for layer_idx, layer in enumerate(layers):
            for part in PARTS:
                handles.append(_module(layer, part).register_forward_hook(keep(layer_idx, part)))
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def edited(layer: nn.Module, slots: torch.Tensor, edits: dict[str, torch.Tensor]) -> Iterator[None]:
    """Replace what parts of one layer return at the vision tokens."""

    def replace(tensor: torch.Tensor) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            (output if isinstance(output, torch.Tensor) else output[0])[:, slots] = tensor

        return hook

    handles = [_module(layer, part).register_forward_hook(replace(tensor)) for part, tensor in edits.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _module(layer: nn.Module, part: str) -> nn.Module:
    return layer.get_submodule(part if part == "self_attn" else f"self_attn.{part}")
