"""Image caches that no image gives as it is: entered late, blind to the text before it, or blind to all but itself.

Each is the image's prefill, or the part of it from layer k on, run once more with an edit; so each k costs that much.
They are read like any other: `Plan.hide(range(k)) | Plan.swap(range(k, L), late_entry(vlm, encoded, k))`.
"""

from collections.abc import Callable
from typing import Any

import torch

from vfl.engine.image_cache import ImageCache, can_share, slots_of
from vfl.engine.layer_trace import LayerTrace, trace_prompt
from vfl.engine.rows import model_mask, run_layer, tokens_of
from vfl.errors import InputError
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM


@torch.no_grad()
def late_entry(vlm: VLM, encoded: Encoded, first: int) -> ImageCache:
    """The image cache of vision tokens that skip layers 0 .. first - 1: their raw embeddings enter at layer `first`.

    Only layers `first` and above may be read; the text before the image runs through all layers as ever. On DeepStack
    models the features of the skipped layers are left out.

    Raises:
        InputError: for a layer that the model lacks, or a prompt whose vision states depend on later text.
    """
    trace = _image_trace(vlm, encoded, first, "late entry")
    slots = slots_of(encoded.spans, trace.hidden[0].device)
    state = trace.hidden[first].clone() if first < vlm.num_layers else trace.hidden[-1].clone()
    state[:, slots] = trace.hidden[0][:, slots].to(state.device)
    return _rerun(vlm, encoded, trace, first, state, lambda layer_idx, mask: mask)


@torch.no_grad()
def blind_to_text(vlm: VLM, encoded: Encoded, below: int) -> ImageCache:
    """The image cache of vision tokens that see no text before them at layers 0 .. below - 1, but one another.

    Raises:
        InputError: for a layer that the model lacks, or a prompt whose vision states depend on later text.
    """

    def hide(mask: torch.Tensor, start: int, end: int) -> None:
        mask[..., start:end, :start] = False

    return _masked(vlm, encoded, below, "an image cache blind to the text before it", hide)


@torch.no_grad()
def each_alone(vlm: VLM, encoded: Encoded, below: int) -> ImageCache:
    """The image cache of vision tokens of which each sees nothing but itself at layers 0 .. below - 1.

    Raises:
        InputError: for a layer that the model lacks, or a prompt whose vision states depend on later text.
    """

    def hide(mask: torch.Tensor, start: int, end: int) -> None:
        mask[..., start:end, :] = False
        mask[..., start:end, start:end].diagonal(dim1=-2, dim2=-1).fill_(True)

    return _masked(vlm, encoded, below, "an image cache of vision tokens that see themselves alone", hide)


def _masked(
    vlm: VLM, encoded: Encoded, below: int, what: str, hide: Callable[[torch.Tensor, int, int], None]
) -> ImageCache:
    """The image cache with `hide(mask, start, end)` of the vision span done to the masks of layers 0 .. below - 1."""
    trace = _image_trace(vlm, encoded, below, what)
    (span,) = encoded.spans

    def masked(layer_idx: int, mask: torch.Tensor) -> torch.Tensor:
        if layer_idx >= below:
            return mask
        mask = mask.clone()
        hide(mask, span.start, span.end)
        return mask

    return _rerun(vlm, encoded, trace, 0, trace.hidden[0], masked)


def _image_trace(vlm: VLM, encoded: Encoded, layer: int, what: str) -> LayerTrace:
    if not 0 <= layer <= vlm.num_layers:
        raise InputError(f"Layer {layer} was given for {what}; the model has {vlm.num_layers}: 0 to {vlm.num_layers}.")
    if not can_share(vlm, encoded):
        raise InputError(
            f"{what[0].upper()}{what[1:]} needs one image span whose states do not depend on later text; this prompt "
            f"of {vlm.family.name} has {len(encoded.spans)} spans"
            + ("." if vlm.shares_prefix else " and its vision states see the question.")
        )
    return trace_prompt(vlm, encoded, encoded.spans[-1].end)


class _Keep:
    """A cache for one run over all tokens: keeps each layer's keys and values."""

    def __init__(self) -> None:
        self.pairs: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.pairs[layer_idx] = (keys, values)
        return keys, values


def _rerun(
    vlm: VLM,
    encoded: Encoded,
    trace: LayerTrace,
    first: int,
    state: torch.Tensor,
    masked: Callable[[int, torch.Tensor], torch.Tensor],
) -> ImageCache:
    """Layers `first` and above once more, from `state` (1, n, d) and with edited masks; below, the trace's own."""
    keep = _Keep()
    for layer_idx in range(first, vlm.num_layers):
        mask = model_mask(vlm, masked(layer_idx, trace.masks[layer_idx]), state.dtype)
        state = run_layer(vlm, layer_idx, state, mask, keep, tokens_of(trace))
    pairs = [keep.pairs.get(i, (trace.keys[i], trace.values[i])) for i in range(vlm.num_layers)]
    return ImageCache(
        keys=tuple(keys for keys, _ in pairs),
        values=tuple(values for _, values in pairs),
        ids=encoded.input_ids[:, : trace.length],
        positions=encoded.positions[..., : trace.length],
        spans=encoded.spans,
        image_key=encoded.image_key,
    )
