"""Vision streams: every layer's keys and values of an image, computed once and read by any experiment.

Shapes: H key-value heads, S tokens before the rows' own, n tokens of a frame, D head dimension, d model width.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from vfl.errors import InputError
from vfl.models.encode import Encoded, Span
from vfl.models.vlm import VLM

# What the engine sets itself when it calls a layer; everything else is passed on as captured.
_OWN_ARGUMENTS = {"hidden_states", "attention_mask", "past_key_values", "use_cache"}


@dataclass(frozen=True, eq=False)
class ImageCache:
    """Keys (after RoPE) and values of a prefilled prompt, up to its last vision token where the prefix is shared.

    Attributes:
        keys: per layer (1, H, S, D).
        values: per layer (1, H, S, D).
        ids: (1, S) tokens that were prefilled.
        spans: where the vision tokens stand.
        image_key: which pixels they come from.
    """

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    ids: torch.Tensor
    spans: tuple[Span, ...]
    image_key: str

    @property
    def length(self) -> int:
        """Prefilled tokens S."""
        return int(self.ids.shape[1])

    def slots(self) -> torch.Tensor:
        """(V,) positions of the vision tokens."""
        return slots_of(self.spans, self.ids.device)

    def check_swappable(self, encoded: Encoded) -> None:
        """Raise InputError unless this stream's vision tokens can stand in for the prompt's own."""
        if self.spans != encoded.spans:
            theirs, ours = ([(s.start, s.end) for s in spans] for spans in (self.spans, encoded.spans))
            raise InputError(
                f"The source's vision tokens stand at {theirs}, the target's at {ours}; swapping needs the same number "
                "at the same positions. Give both images the same size in pixels (and the same question)."
            )


def slots_of(spans: tuple[Span, ...], device: torch.device) -> torch.Tensor:
    """(V,) positions of all spans."""
    return torch.cat([torch.arange(span.start, span.end, device=device) for span in spans])


@dataclass(frozen=True, eq=False)
class Frame:
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


def can_share(vlm: VLM, encoded: Encoded) -> bool:
    """Whether the vision stream of this prompt is the same for every later text: one span in a causal model."""
    return vlm.shares_prefix and len(encoded.spans) == 1


@torch.no_grad()
def prefill(vlm: VLM, encoded: Encoded) -> ImageCache:
    """Run the model once over the prompt up to its last vision token and keep every layer's keys and values.

    Where the prefix can't be shared (several spans, prefix-LM) the whole prompt is run.
    """
    end = encoded.spans[-1].end if can_share(vlm, encoded) else encoded.length
    cache = _run_body(vlm, encoded, end)
    return ImageCache(
        keys=tuple(layer.keys for layer in cache.layers),
        values=tuple(layer.values for layer in cache.layers),
        ids=encoded.input_ids[:, :end],
        spans=encoded.spans,
        image_key=encoded.image_key,
    )


@torch.no_grad()
def frame_of_prompt(vlm: VLM, encoded: Encoded, end: int | None = None) -> Frame:
    """A frame over the prompt, image included, or its first `end` tokens (exact full passes start here)."""
    with watch(vlm.layers) as watched:
        cache = _run_body(vlm, encoded, end or encoded.length)
    return watched.frame(0, cache)


@torch.no_grad()
def frame_after(
    vlm: VLM, past: list[tuple[torch.Tensor, torch.Tensor]], ids: torch.Tensor, positions: torch.Tensor, start: int
) -> Frame:
    """A frame over tokens that follow a prefilled past.

    Args:
        vlm: the model.
        past: per layer keys and values (1, H, start, D).
        ids: (1, n) tokens.
        positions: (..., 1, n) their position ids.
        start: position of the first token.
    """
    # No config is given to the cache on purpose: sliding-window layers must keep all keys, the mask does the window.
    cache = DynamicCache()
    for layer_idx, (keys, values) in enumerate(past):
        cache.update(keys, values, layer_idx)
    with watch(vlm.layers) as watched:
        vlm.parts.decoder(inputs_embeds=vlm.embed(ids), position_ids=positions, past_key_values=cache, use_cache=True)
    return watched.frame(start, cache)


def _run_body(vlm: VLM, encoded: Encoded, end: int) -> DynamicCache:
    cache = DynamicCache()
    vlm.parts.body(
        **encoded.head(end), position_ids=encoded.positions[..., :end], past_key_values=cache, use_cache=True
    )
    return cache


class _Watched:
    """What the hooks of `watch` saw."""

    def __init__(self, num_layers: int) -> None:
        self.inputs: list[torch.Tensor] = []
        self.outputs: list[torch.Tensor] = []
        self.arguments: list[Mapping[str, Any]] = []
        self.num_layers = num_layers

    def frame(self, start: int, cache: DynamicCache) -> Frame:
        assert len(self.inputs) == len(self.outputs) == self.num_layers, "every layer runs once, in order"
        masks: dict[int, torch.Tensor] = {}
        length = self.inputs[0].shape[1]
        for arguments in self.arguments:
            mask = arguments.get("attention_mask")
            if id(mask) not in masks:
                masks[id(mask)] = _as_bool(mask, length, start + length, self.inputs[0].device)
        following = [*self.inputs[1:], self.outputs[-1]]
        return Frame(
            start=start,
            hidden=(*self.inputs, self.outputs[-1]),
            between=tuple(_difference(after, out) for after, out in zip(following, self.outputs, strict=True)),
            arguments=tuple(
                {name: value for name, value in arguments.items() if name not in _OWN_ARGUMENTS}
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

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        watched.inputs.append(args[0] if args else kwargs["hidden_states"])
        watched.arguments.append(kwargs)

    def after(module: nn.Module, args: Any, output: Any) -> None:
        watched.outputs.append(first_tensor(output))

    handles = []
    try:
        for layer in layers:
            handles.append(layer.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(layer.register_forward_hook(after))
        yield watched
    finally:
        for handle in handles:
            handle.remove()


def first_tensor(output: Any) -> torch.Tensor:
    """The hidden states of a layer's output: layers return a bare tensor or a tuple that starts with it."""
    hidden: torch.Tensor = output if isinstance(output, torch.Tensor) else output[0]
    return hidden


def _difference(after: torch.Tensor, output: torch.Tensor) -> torch.Tensor | None:
    if after is output or torch.equal(after, output.to(after.device)):
        return None
    return after - output.to(after.device)


def _as_bool(mask: torch.Tensor | None, num_queries: int, num_keys: int, device: torch.device) -> torch.Tensor:
    """None, boolean (True = attend) or additive mask -> (1, 1, n, S + n) boolean."""
    if mask is None:  # plain causal, queries at the end of the keys
        causal = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device)
        return causal.tril(num_keys - num_queries)[None, None]
    assert mask.shape[-2:] == (num_queries, num_keys), f"mask {tuple(mask.shape)}, {num_queries} x {num_keys} expected"
    return mask if mask.dtype == torch.bool else mask == 0
