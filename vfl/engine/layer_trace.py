"""Layer traces: one run of the plain model over some tokens, with all that its layers were given and gave.

Shapes: H key-value heads, S tokens before the traced ones, n traced tokens, D head dimension, d model width. One prompt
is traced, or in joint sweeps several of one shape, whose states, keys and values then stand where 1 stands.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from vfl.engine.image_cache import run_body
from vfl.engine.layer_hooks import layer_hooks
from vfl.engine.layer_inputs import OWN_ARGUMENTS
from vfl.engine.masks import plain_mask
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """One run of the plain model over n tokens, with what every layer was given: rows start from here.

    Attributes:
        start: position of the first token.
        hidden: L+1 tensors (1, n, d): the input of every layer and the output of the last.
        between: per layer, what the model added between this layer's output and the next one's input (DeepStack),
            or None where it adds nothing.
        arguments: per layer, the keyword arguments that its forward received.
        masks: per layer (1, 1, n, S + n), True = attend.
        keys: per layer (1, H, n, D).
        values: per layer (1, H, n, D).
    """

    start: int
    hidden: tuple[torch.Tensor, ...]
    between: tuple[torch.Tensor | None, ...]
    arguments: tuple[Mapping[str, Any], ...]
    masks: tuple[torch.Tensor, ...]
    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]

    @property
    def length(self) -> int:
        """Number of tokens n."""
        return int(self.hidden[0].shape[1])


@torch.no_grad()
def trace_prompt(vlm: VLM, encoded: Encoded, end: int | None = None) -> LayerTrace:
    """A layer trace over the prompt, image included, or its first `end` tokens (exact full passes start here)."""
    with watch(vlm.layers) as watched:
        cache = run_body(vlm, encoded, end or encoded.length)
    return watched.trace(0, cache)


@torch.no_grad()
def trace_after(
    vlm: VLM, past: list[tuple[torch.Tensor, torch.Tensor]], ids: torch.Tensor, positions: torch.Tensor, start: int
) -> LayerTrace:
    """A layer trace over tokens that follow a prefilled past.

    Args:
        vlm: the model.
        past: per layer keys and values (1, H, start, D), or of several prompts.
        ids: (1, n) tokens, or a row each prompt.
        positions: (..., 1, n) their position ids.
        start: position of the first token.
    """
    # No config is given to the cache on purpose: sliding-window layers must keep all keys, the mask does the window.
    cache = DynamicCache()
    for layer_idx, (keys, values) in enumerate(past):
        cache.update(keys, values, layer_idx)
    with watch(vlm.layers) as watched:
        vlm.parts.decoder(inputs_embeds=vlm.embed(ids), position_ids=positions, past_key_values=cache, use_cache=True)
    return watched.trace(start, cache)


class _Watched:
    """What the hooks of `watch` saw."""

    def __init__(self, num_layers: int) -> None:
        self.inputs: list[torch.Tensor] = []
        self.outputs: list[torch.Tensor] = []
        self.arguments: list[Mapping[str, Any]] = []
        self.num_layers = num_layers

    def trace(self, start: int, cache: DynamicCache) -> LayerTrace:
        assert len(self.inputs) == len(self.outputs) == self.num_layers, "every layer runs once, in order"
        masks: dict[int, torch.Tensor] = {}
        length = self.inputs[0].shape[1]
        for arguments in self.arguments:
            mask = arguments.get("attention_mask")
            if id(mask) not in masks:
                masks[id(mask)] = plain_mask(mask, length, start + length, self.inputs[0].device)
        following = [*self.inputs[1:], self.outputs[-1]]
        return LayerTrace(
            start=start,
            hidden=(*self.inputs, self.outputs[-1]),
            between=tuple(_difference(after, out) for after, out in zip(following, self.outputs, strict=True)),
            arguments=tuple(
                {name: value for name, value in arguments.items() if name not in OWN_ARGUMENTS}
                for arguments in self.arguments
            ),
            masks=tuple(masks[id(arguments.get("attention_mask"))] for arguments in self.arguments),
            keys=tuple(layer.keys[:, :, start:] for layer in cache.layers),
            values=tuple(layer.values[:, :, start:] for layer in cache.layers),
        )


@contextmanager
def watch(layers: nn.ModuleList) -> Iterator[_Watched]:
    """Record what every decoder layer receives and returns; the hooks are gone afterwards, also after an exception."""
    watched = _Watched(len(layers))

    def enter(layer_idx: int, state: torch.Tensor, arguments: Mapping[str, Any]) -> None:
        watched.inputs.append(state)
        watched.arguments.append(arguments)

    def leave(layer_idx: int, output: torch.Tensor, arguments: Mapping[str, Any]) -> None:
        watched.outputs.append(output)

    with layer_hooks(layers, enter, leave):
        yield watched


def _difference(after: torch.Tensor, output: torch.Tensor) -> torch.Tensor | None:
    if after is output or torch.equal(after, output.to(after.device)):
        return None
    return after - output.to(after.device)
