"""Streams that no image gives as it is: entered late, blind to the text before it, or the mean image.

Each is the image's prefill, or the part of it from layer k on, run once more with an edit; so each k costs that much.
They read like any other stream: `Plan.hide(range(k)) | Plan.swap(range(k, L), late_entry(vlm, encoded, k))`.
"""

from collections.abc import Callable
from typing import Any

import torch

from vfl.engine.image_cache import Frame, ImageCache, can_share, frame_of_prompt, prefill, slots_of
from vfl.engine.rows import run_layer, tokens_of
from vfl.errors import InputError
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM


@torch.no_grad()
def late_entry(vlm: VLM, encoded: Encoded, first: int) -> ImageCache:
    """The stream of vision tokens that skip layers 0 .. first - 1: their raw embeddings enter at layer `first`.

    Only layers `first` and above may be read; the text before the image runs through all layers as ever. On DeepStack
    models the features of the skipped layers are left out.

    Raises:
        InputError: for a layer that the model lacks, or a prompt whose vision states depend on later text.
    """
    frame = _image_frame(vlm, encoded, first, "late entry")
    slots = slots_of(encoded.spans, frame.hidden[0].device)
    state = frame.hidden[first].clone() if first < vlm.num_layers else frame.hidden[-1].clone()
    state[:, slots] = frame.hidden[0][:, slots].to(state.device)
    return _rerun(vlm, encoded, frame, first, state, lambda layer_idx, mask: mask)


@torch.no_grad()
def blind_to_text(vlm: VLM, encoded: Encoded, below: int) -> ImageCache:
    """The stream of vision tokens that see no text before them at layers 0 .. below - 1; they still see each other.

    Raises:
        InputError: for a layer that the model lacks, or a prompt whose vision states depend on later text.
    """
    frame = _image_frame(vlm, encoded, below, "a stream blind to the text before it")
    (span,) = encoded.spans

    def masked(layer_idx: int, mask: torch.Tensor) -> torch.Tensor:
        if layer_idx >= below:
            return mask
        mask = mask.clone()
        mask[..., span.start : span.end, : span.start] = False
        return mask

    return _rerun(vlm, encoded, frame, 0, frame.hidden[0], masked)


@torch.no_grad()
def mean_stream(vlm: VLM, encoded: Encoded, embedding: torch.Tensor) -> ImageCache:
    """The stream of an image whose every vision embedding is `embedding` (d,), such as the mean over many images.

    Marker text inside the span keeps its own embeddings.
    """
    is_image = encoded.input_ids[0] == vlm.parts.image_token_id

    def replace(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        embeds = kwargs["inputs_embeds"].clone()
        here = is_image[: embeds.shape[1]].to(embeds.device)
        embeds[:, here] = embedding.to(embeds)
        return args, kwargs | {"inputs_embeds": embeds}

    handle = vlm.parts.decoder.register_forward_pre_hook(replace, with_kwargs=True)
    try:
        return prefill(vlm, encoded)
    finally:
        handle.remove()


@torch.no_grad()
def vision_embeddings(vlm: VLM, encoded: Encoded) -> torch.Tensor:
    """(V, d) embeddings of the image tokens as they enter the decoder (the projector's outputs, markers left out)."""
    frame = frame_of_prompt(vlm, encoded, encoded.spans[-1].end)
    is_image = encoded.input_ids[0, : frame.length] == vlm.parts.image_token_id
    return frame.hidden[0][0, is_image.to(frame.hidden[0].device)]


def _image_frame(vlm: VLM, encoded: Encoded, layer: int, what: str) -> Frame:
    if not 0 <= layer <= vlm.num_layers:
        raise InputError(f"Layer {layer} was given for {what}; the model has {vlm.num_layers}: 0 to {vlm.num_layers}.")
    if not can_share(vlm, encoded):
        raise InputError(
            f"{what[0].upper()}{what[1:]} needs one image span whose states do not depend on later text; this prompt "
            f"of {vlm.family.name} has {len(encoded.spans)} spans"
            + ("." if vlm.shares_prefix else " and its vision states see the question.")
        )
    return frame_of_prompt(vlm, encoded, encoded.spans[-1].end)


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
    frame: Frame,
    first: int,
    state: torch.Tensor,
    masked: Callable[[int, torch.Tensor], torch.Tensor],
) -> ImageCache:
    """Layers `first` and above once more, from `state` (1, n, d) and with edited masks; below, the frame's own."""
    keep = _Keep()
    for layer_idx in range(first, vlm.num_layers):
        mask = masked(layer_idx, frame.masks[layer_idx])
        state = run_layer(vlm, layer_idx, state, mask, keep, tokens_of(frame))
    pairs = [keep.pairs.get(i, (frame.keys[i], frame.values[i])) for i in range(vlm.num_layers)]
    return ImageCache(
        keys=tuple(keys for keys, _ in pairs),
        values=tuple(values for _, values in pairs),
        ids=encoded.input_ids[:, : frame.length],
        spans=encoded.spans,
        image_key=encoded.image_key,
    )
