"""Image caches of several prompts from one pass: a pair's images cost one launch of each kernel instead of three."""

from collections.abc import Sequence

import torch
from transformers import DynamicCache

from vfl.engine.decoder_inputs import input_shape
from vfl.engine.image_cache import ImageCache, can_share, image_cache_of, prefill
from vfl.engine.memory import in_parts
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM


def prefill_all(vlm: VLM, prompts: Sequence[Encoded]) -> list[ImageCache]:
    """The image cache of each prompt, all in one pass where they differ in their pixels alone."""

    def make(places: list[int]) -> list[ImageCache]:
        return _prefill_all(vlm, [prompts[place] for place in places])

    return vlm.once([(prompt, "image cache") for prompt in prompts], make)


@torch.no_grad()
def _prefill_all(vlm: VLM, prompts: Sequence[Encoded]) -> list[ImageCache]:
    if len(prompts) < 2 or not joinable(vlm, prompts):
        return [prefill(vlm, prompt) for prompt in prompts]
    caches, _ = in_parts(list(prompts), len(prompts), lambda part: _prefilled(vlm, part), "images")
    return caches


def joinable(vlm: VLM, prompts: Sequence[Encoded]) -> bool:
    """Whether prompts have the same tokens at the same positions up to the image's end, and inputs of equal shape."""
    first = prompts[0]
    if not vlm.joins_images or not all(can_share(vlm, prompt) for prompt in prompts):
        return False
    end = first.spans[-1].end
    heads = [prompt.head(end) for prompt in prompts]
    return all(
        prompt.spans == first.spans
        and torch.equal(head["input_ids"], heads[0]["input_ids"])
        and torch.equal(prompt.positions[..., :end], first.positions[..., :end])
        and {name: input_shape(value) for name, value in head.items()}
        == {name: input_shape(value) for name, value in heads[0].items()}
        for prompt, head in zip(prompts, heads, strict=True)
    )


def _prefilled(vlm: VLM, prompts: Sequence[Encoded]) -> list[ImageCache]:
    """Prompts that can be joined, in one pass."""
    end = prompts[0].spans[-1].end
    cache = run_joined(vlm, prompts)
    return [image_cache_of(prompt, cache, row, end) for row, prompt in enumerate(prompts)]


def run_joined(vlm: VLM, prompts: Sequence[Encoded]) -> DynamicCache:
    """The plain model over joinable prompts up to the image's end, a row each; its cache of all layers."""
    first, end = prompts[0], prompts[0].spans[-1].end
    heads = [prompt.head(end) for prompt in prompts]
    joined = {
        name: torch.cat([head[name] for head in heads]) if isinstance(value, torch.Tensor) else value
        for name, value in heads[0].items()
    }
    cache = DynamicCache()
    positions = first.positions[..., :end]
    positions = positions.expand(*positions.shape[:-2], len(prompts), end)
    vlm.parts.body(**joined, position_ids=positions, past_key_values=cache, use_cache=True)
    return cache
