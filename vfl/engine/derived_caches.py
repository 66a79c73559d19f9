"""Image caches that no image gives as it is: entered late, blind to the text before it, or blind to all but itself.

Each is the image's prefill, or the part of it from layer k on, run once more with an edit. All those of a prompt, or of
prompts that differ in their pixels alone, are rows of one batch beside one plain pass.
They are read like any other: `Plan.hide(range(k)) | Plan.swap(range(k, L), late_entry(vlm, encoded, k))`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from vfl.engine.image_cache import ImageCache, can_share
from vfl.engine.joint_prefill import joinable, run_joined
from vfl.engine.layer_trace import LayerTrace, trace_prompt, watch
from vfl.engine.memory import in_parts
from vfl.engine.rows import Tokens, model_mask, run_layer
from vfl.errors import InputError
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

Hide = Callable[[torch.Tensor, int, int], None]
"""`hide(mask, start, end)` takes from a mask what the vision span start .. end - 1 shall not see."""


def late_entry(vlm: VLM, encoded: Encoded, first: int) -> ImageCache:
    """The image cache of vision tokens that skip layers 0 .. first - 1: their raw embeddings enter at layer `first`.

    Only layers `first` and above may be read; the text before the image runs through all layers as ever. On DeepStack
    models the features of the skipped layers are left out.

    Raises:
        InputError: for a layer that the model lacks, or a prompt whose vision states depend on later text.
    """
    return late_entries(vlm, [encoded], [first])[0][0]


def blind_to_text(vlm: VLM, encoded: Encoded, below: int) -> ImageCache:
    """The image cache of vision tokens that see no text before them at layers 0 .. below - 1, but one another.

    Raises:
        InputError: for a layer that the model lacks, or a prompt whose vision states depend on later text.
    """
    return all_blind_to_text(vlm, [encoded], [below])[0][0]


def each_alone(vlm: VLM, encoded: Encoded, below: int) -> ImageCache:
    """The image cache of vision tokens of which each sees nothing but itself at layers 0 .. below - 1.

    Raises:
        InputError: for a layer that the model lacks, or a prompt whose vision states depend on later text.
    """
    return all_alone(vlm, [encoded], [below])[0][0]


def late_entries(vlm: VLM, prompts: Sequence[Encoded], firsts: Sequence[int]) -> list[list[ImageCache]]:
    """For each prompt `late_entry` at each of the layers."""
    return _derived(vlm, prompts, firsts, "late entry", None)


def all_blind_to_text(vlm: VLM, prompts: Sequence[Encoded], belows: Sequence[int]) -> list[list[ImageCache]]:
    """For each prompt `blind_to_text` below each of the layers."""

    def hide(mask: torch.Tensor, start: int, end: int) -> None:
        mask[..., start:end, :start] = False

    return _derived(vlm, prompts, belows, "an image cache blind to the text before it", hide)


def all_alone(vlm: VLM, prompts: Sequence[Encoded], belows: Sequence[int]) -> list[list[ImageCache]]:
    """For each prompt `each_alone` below each of the layers."""

    def hide(mask: torch.Tensor, start: int, end: int) -> None:
        mask[..., start:end, :] = False
        mask[..., start:end, start:end].diagonal(dim1=-2, dim2=-1).fill_(True)

    return _derived(vlm, prompts, belows, "an image cache of vision tokens that see themselves alone", hide)


@torch.no_grad()
def _derived(
    vlm: VLM, prompts: Sequence[Encoded], layers: Sequence[int], what: str, hide: Hide | None
) -> list[list[ImageCache]]:
    """Image caches by prompt and layer: of vision tokens masked by `hide` below it, or of those that enter there."""
    for encoded in prompts:
        _check(vlm, encoded, layers, what)
    if not layers:
        return [[] for _ in prompts]

    def run(part: Sequence[Encoded]) -> list[list[ImageCache]]:
        return _rerun(vlm, part, layers, hide)

    if len(prompts) > 1 and joinable(vlm, prompts):
        return in_parts(list(prompts), len(prompts), run, "images")[0]
    return [caches for encoded in prompts for caches in run([encoded])]


def _check(vlm: VLM, encoded: Encoded, layers: Sequence[int], what: str) -> None:
    if outside := [layer for layer in layers if not 0 <= layer <= vlm.num_layers]:
        raise InputError(
            f"Layer {outside[0]} was given for {what}; the model has {vlm.num_layers}: 0 to {vlm.num_layers}."
        )
    if not can_share(vlm, encoded):
        raise InputError(
            f"{what[0].upper()}{what[1:]} needs one image span whose states do not depend on later text; this prompt "
            f"of {vlm.family.name} has {len(encoded.spans)} spans"
            + ("." if vlm.shares_prefix else " and its vision states see the question.")
        )


def _image_trace(vlm: VLM, prompts: Sequence[Encoded]) -> LayerTrace:
    """A layer trace over prompts up to their image's end, a row each; positions and masks are those of one."""
    first = trace_prompt(vlm, prompts[0], prompts[0].spans[-1].end)
    if len(prompts) == 1:
        return first
    with watch(vlm.layers) as watched:
        cache = run_joined(vlm, prompts)
    return replace(watched.trace(0, cache), arguments=first.arguments, masks=first.masks)


class _Keep:
    """A cache for one run over all tokens: keeps each layer's keys and values."""

    def __init__(self) -> None:
        self.pairs: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.pairs[layer_idx] = (keys, values)
        return keys, values


def _rerun(vlm: VLM, prompts: Sequence[Encoded], layers: Sequence[int], hide: Hide | None) -> list[list[ImageCache]]:
    """Layers once more with the edits of each of `layers`: P prompts of one shape by as many edits are rows.

    With `hide` a row runs through all layers, its vision tokens masked below its edit's; without, it starts at that
    layer, with the raw embeddings in the vision tokens' places, and has the plain keys and values below.
    """
    trace, keep = _image_trace(vlm, prompts), _Keep()
    count, (span,) = len(prompts), prompts[0].spans
    slots = slice(span.start, span.end)
    edits = sorted(layers)
    starts = [0] * len(edits) if hide is not None else edits
    state = trace.hidden[0][:0]
    for layer_idx in range(min(starts, default=vlm.num_layers), vlm.num_layers):
        for _ in range(starts.count(layer_idx)):
            fresh = trace.hidden[layer_idx].clone()
            fresh[:, slots] = trace.hidden[0][:, slots].to(fresh.device)
            state = torch.cat([state.to(fresh.device), fresh])
        joined = len(state) // count
        base, between = trace.masks[layer_idx], trace.between[layer_idx]
        masked = hide is not None and any(layer_idx < below for below in edits)
        mask = base
        if hide is not None and masked:
            hidden = base.clone()
            hide(hidden, span.start, span.end)
            mask = torch.cat([hidden if layer_idx < below else base for below in edits]).repeat_interleave(count, 0)
        num_layers = vlm.num_layers
        tokens = Tokens(
            trace.arguments,
            trace.masks,
            [None if between is None else between.repeat(joined, 1, 1)] * num_layers,
        )
        state = run_layer(vlm, layer_idx, state, model_mask(vlm, mask, state.dtype), keep, tokens)

    def cache_of(number: int, row: int) -> ImageCache:
        pairs = []
        for layer_idx in range(vlm.num_layers):
            own, place = (trace.keys[layer_idx], trace.values[layer_idx]), row
            if layer_idx >= starts[number]:
                own, place = keep.pairs[layer_idx], number * count + row
            pairs.append((own[0][place : place + 1], own[1][place : place + 1]))
        encoded = prompts[row]
        return ImageCache(
            keys=tuple(keys for keys, _ in pairs),
            values=tuple(values for _, values in pairs),
            ids=encoded.input_ids[:, : trace.length],
            positions=encoded.positions[..., : trace.length],
            spans=encoded.spans,
            image_key=encoded.image_key,
        )

    return [[cache_of(edits.index(layer), row) for layer in layers] for row in range(count)]
