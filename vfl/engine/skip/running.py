"""Run a model with its vision tokens absent from the layers that a `Skip` leaves out: fewer tokens, a smaller cache.

Hooks on the decoder's layers take the vision tokens out of the hidden states, positions and masks before a layer that
does without them, and put the projector's outputs in where they enter. Nothing on the model is patched; the hooks are
gone afterwards. Exact: what the text computes is what it computes in full passes with masks.

Legend: T prompt tokens, K keys, d model width.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from transformers import DynamicCache

from vfl.engine import decode
from vfl.engine.image_cache import can_share, slots_of
from vfl.engine.layer_hooks import layer_hooks
from vfl.engine.layer_inputs import cut_argument
from vfl.engine.masks import blocked
from vfl.engine.skip.skip import Skip
from vfl.engine.untouched import untouched
from vfl.errors import InputError
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM


class RaggedCache(DynamicCache):
    """Keys and values whose layers hold different numbers of tokens; to the model it looks as if none were missing.

    Positions and masks are made for the whole length, and cut for each layer to what that layer holds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.whole = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens so far, those that some layers do without included."""
        return self.whole

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Length and offset that a mask is made for."""
        return self.whole + query_length, 0


def cache_bytes(cache: DynamicCache) -> int:
    """Memory of all layers' keys and values."""
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers if layer.is_initialized)


def generate(
    vlm: VLM, encoded: Encoded, skip: Skip | None, *, max_new_tokens: int = 64, exactly: bool = False
) -> tuple[list[int], DynamicCache]:
    """The greedy answer's tokens, without the end token, and the cache that it left.

    Args:
        vlm: the model.
        encoded: a prompt with one image span.
        skip: where vision tokens run; without hooks for the plain model, which None and a skip of nothing are.
        max_new_tokens: bound on the answer.
        exactly: go on to the bound whatever the model says (for timing).

    Raises:
        InputError: as `skipping`.
    """
    way: AbstractContextManager[DynamicCache] = (
        nullcontext(DynamicCache()) if skip is None or skip.nothing else skipping(vlm, encoded, skip)
    )
    with untouched(vlm), way as cache:
        (ids,) = decode.generate(vlm, encoded.inputs, max_new_tokens, cache=cache, exactly=exactly)
    return ids, cache


@contextmanager
def skipping(vlm: VLM, encoded: Encoded, skip: Skip) -> Iterator[RaggedCache]:
    """Passes over this prompt, and what is generated after it with the yielded cache, skip layers.

    Example:
        >>> with skipping(vlm, encoded, Skip(32, 4, 24)) as cache:  # doctest: +SKIP
        ...     vlm.model.generate(**encoded.inputs, past_key_values=cache)

    Raises:
        InputError: for a prompt with several image spans, or a model whose vision states depend on later text.
    """
    if not can_share(vlm, encoded):
        raise InputError(
            f"Skipping needs one image span whose states do not depend on later text; this prompt of {vlm.family.name} "
            f"has {len(encoded.spans)} spans"
            + ("." if vlm.shares_prefix else " and its vision states see the question.")
        )
    if skip.num_layers != vlm.num_layers:
        raise InputError(f"The layers to skip are those of {skip.num_layers}; the model has {vlm.num_layers}.")
    run = _Run(vlm, encoded, skip)
    handles = [
        vlm.parts.decoder.register_forward_pre_hook(run.begin, with_kwargs=True),
        vlm.parts.decoder.register_forward_hook(run.end),
    ]
    try:
        with layer_hooks(vlm.layers, run.enter, run.leave):
            yield run.cache
    finally:
        for handle in handles:
            handle.remove()


class _Run:
    """The hooks of one prompt, and what they hand on from layer to layer."""

    def __init__(self, vlm: VLM, encoded: Encoded, skip: Skip) -> None:
        self.cache = RaggedCache()
        self.length = encoded.length
        self.computed, self.visible = set(skip.computed), set(skip.visible)
        self.is_vision = torch.zeros(encoded.length, dtype=torch.bool, device=vlm.device)
        self.is_vision[slots_of(encoded.spans, vlm.device)] = True
        self.is_image = encoded.input_ids[0] == vlm.parts.image_token_id
        self.text = (~self.is_vision).nonzero().flatten()
        self.prefilling = False
        self.have_vision = True
        self.raw: torch.Tensor | None = None
        self.features: list[torch.Tensor] = []
        self.new = 0

    def begin(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Before the decoder: tell the prompt from what follows it, and take DeepStack's features in hand."""
        embeds, past = kwargs["inputs_embeds"], kwargs.get("past_key_values")
        if past is not None and past is not self.cache:
            raise InputError("Under `skipping` pass its cache: generate(..., past_key_values=cache).")
        self.new = embeds.shape[1]
        self.prefilling = past is None or self.cache.whole == 0
        if not self.prefilling:
            return args, kwargs
        if embeds.shape[:2] != (1, self.length):
            raise InputError(f"Expected the prompt of {self.length} tokens alone, got {tuple(embeds.shape[:2])}.")
        self.have_vision = True
        self.raw = embeds[:, self.is_vision.to(embeds.device)]
        self.features = list(kwargs.get("deepstack_visual_embeds") or [])
        return args, {
            name: None if name in ("deepstack_visual_embeds", "visual_pos_masks") else value
            for name, value in kwargs.items()
        }

    def end(self, module: Any, args: Any, output: Any) -> None:
        """After the decoder: its tokens are past."""
        self.cache.whole += self.new

    def enter(
        self, layer_idx: int, state: torch.Tensor, arguments: Mapping[str, Any]
    ) -> tuple[torch.Tensor, Mapping[str, Any]] | None:
        """Before a layer: vision tokens in or out, and the layer's arguments to match."""
        mask = arguments.get("attention_mask")
        if not self.prefilling:
            if mask is None or layer_idx in self.visible:
                return None
            return state, {**arguments, "attention_mask": mask[..., self._held(mask.shape[-1], mask.device)]}
        if layer_idx in self.computed:
            if not self.have_vision:
                state = self._entered(state)
            if layer_idx not in self.visible:
                vision = self.is_vision.to(state.device)
                edges = (~vision[:, None] & vision)[None, None]
                arguments = {**arguments, "attention_mask": blocked(mask, edges)}
        else:
            text = self.text.to(state.device)
            if self.have_vision:
                state = state[:, text]
            arguments = {name: _of_text(name, value, text, self.length) for name, value in arguments.items()}
        self.have_vision = layer_idx in self.computed
        return state, arguments

    def leave(self, layer_idx: int, output: torch.Tensor, arguments: Mapping[str, Any]) -> torch.Tensor | None:
        """After a layer of the prompt: DeepStack's features, and no keys of vision tokens that no text will read."""
        if not self.prefilling or layer_idx not in self.computed:
            return None
        if layer_idx not in self.visible and self.cache.layers:
            held = self.cache.layers[layer_idx]
            text = self.text.to(held.keys.device)
            held.keys, held.values = held.keys[:, :, text], held.values[:, :, text]
        if layer_idx >= len(self.features):
            return None
        state = output.clone()
        here = self.is_image.to(state.device)
        state[:, here] += self.features[layer_idx].to(state)
        return state

    def _entered(self, state: torch.Tensor) -> torch.Tensor:
        """(1, text, d) -> (1, T, d), the projector's outputs in their places."""
        assert self.raw is not None
        whole = state.new_empty(1, self.length, state.shape[-1])
        whole[:, self.text.to(state.device)] = state
        whole[:, self.is_vision.to(state.device)] = self.raw.to(state)
        return whole

    def _held(self, length: int, device: torch.device) -> torch.Tensor:
        """Which of `length` tokens a layer without vision tokens holds."""
        return torch.cat([self.text.to(device), torch.arange(self.length, length, device=device)])


def _of_text(name: str, value: Any, text: torch.Tensor, length: int) -> Any:
    """A layer's argument for the prompt's text tokens alone."""
    if name == "attention_mask":
        if value is None:
            return None
        value = value[..., text.to(value.device)]
        return value if value.ndim == 2 else value[..., text.to(value.device), :]
    return cut_argument(name, value, length, lambda part: part.index_select(-2, text.to(part.device)))
