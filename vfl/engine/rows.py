"""Rows: many plans through the decoder layers at once, each row joining at the layer where it first differs.

Shapes: R rows, A rows that have joined, P prompts (1 but in joint sweeps), H key-value heads, S shared tokens before, n
tokens of the rows, V vision tokens, D head dimension, d model width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import torch

from vfl.engine.image_cache import ImageCache, slots_of
from vfl.engine.layer_hooks import first_tensor
from vfl.engine.layer_inputs import cut_argument
from vfl.engine.layer_trace import LayerTrace
from vfl.engine.masks import as_attention_mask
from vfl.engine.plan import Plan
from vfl.models.encode import Span
from vfl.models.vlm import VLM

KeysValues = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Context:
    """What the rows of one sweep have in common.

    Attributes:
        shared: per layer keys and values (P, H, S, D) that every row of a prompt has before its own tokens.
        spans: where the vision tokens stand, counted from the first key.
        readers: (n,) which of the rows' tokens read by plan; None where all do.
        owners: (R,) the rows' prompts; None where all rows are one prompt's.
    """

    shared: Sequence[KeysValues]
    spans: tuple[Span, ...]
    readers: torch.Tensor | None = None
    owners: torch.Tensor | None = None

    def of_rows(self, part: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """(P, ...) -> what rows first .. last - 1 have of their prompts, (last - first, ...)."""
        if self.owners is None:
            return part.expand(last - first, *part.shape[1:])
        return part[self.owners[first:last].to(part.device)]

    @cached_property
    def slots(self) -> torch.Tensor | slice:
        """An index of the vision tokens: a slice where they stand together, which copies at once, else (V,)."""
        if len(self.spans) == 1:
            return slice(self.spans[0].start, self.spans[0].end)
        return slots_of(self.spans, torch.device("cpu"))

    @property
    def num_slots(self) -> int:
        """Vision tokens V."""
        return sum(map(len, self.spans))


class RowCache:
    """Stands in for the model's cache while rows run: hands each layer every row's own keys and values.

    A layer calls `update` with the rows' new keys and values and gets all those to attend to. Where all tokens of the
    rows read by plan, another image's keys simply take the slots; where the vision tokens run along and must
    keep their own, they are appended, and the mask says who sees which.
    """

    def __init__(self, context: Context, past: Sequence[KeysValues] | None) -> None:
        self.context = context
        self.past = past
        self.reads: list[tuple[slice, ImageCache]] = []
        self.own: KeysValues | None = None
        self._buffers: dict[int, torch.Tensor] = {}

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> KeysValues:
        """(A, H, n, D) new keys and values -> all keys and values of the rows; valid until the next call."""
        if self.past is not None:
            keys, values = (
                torch.cat([past[: new.shape[0]], new], dim=2)
                for past, new in zip(self.past[layer_idx], (keys, values), strict=True)
            )
        self.own = (keys, values)
        return self._assemble(keys, layer_idx, 0), self._assemble(values, layer_idx, 1)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens before those of the rows: Llama 4 sharpens attention by the position in the prompt."""
        past = 0 if self.past is None else self.past[layer_idx][0].shape[2]
        return int(self.context.shared[layer_idx][0].shape[2]) + past

    def _assemble(self, own: torch.Tensor, layer_idx: int, which: int) -> torch.Tensor:
        shared = self.context.shared[layer_idx][which]
        start = shared.shape[2]
        end = start + own.shape[2]
        apart = bool(self.reads) and self.context.readers is not None
        whole = self._buffer(which, own, end + (self.context.num_slots if apart else 0))
        whole[:, :, :start] = self.context.of_rows(shared, 0, len(own))
        whole[:, :, start:end] = own
        slots = self.context.slots
        if apart:
            whole[:, :, end:] = whole[:, :, slots]
        place = slice(end, None) if apart else slots
        for rows, image_cache in self.reads:
            vision = (image_cache.keys, image_cache.values)[which][layer_idx]
            whole[rows][:, :, place] = vision[:, :, slots].to(own.device)
        return whole

    def _buffer(self, which: int, like: torch.Tensor, length: int) -> torch.Tensor:
        """(A, H, length, D): the last layer's where it fits, since taking fresh memory costs more than filling it."""
        shape = (like.shape[0], like.shape[1], length, like.shape[3])
        buffer = self._buffers.get(which)
        if buffer is None or buffer.shape != shape or buffer.device != like.device or buffer.dtype != like.dtype:
            buffer = self._buffers[which] = like.new_empty(shape)
        return buffer


@dataclass(frozen=True)
class Tokens:
    """The tokens that the rows run: positions and masks as the model gave them to each layer.

    Attributes:
        arguments: per layer, the layer's keyword arguments.
        masks: per layer (1, 1, n, S + past + n).
        between: per layer, what the model adds after it, or None.
    """

    arguments: Sequence[Mapping[str, Any]]
    masks: Sequence[torch.Tensor]
    between: Sequence[torch.Tensor | None]


def tokens_of(trace: LayerTrace) -> Tokens:
    """All tokens of a layer trace."""
    return Tokens(trace.arguments, trace.masks, trace.between)


def cut_tokens(tokens: Tokens, first: int, last: int) -> Tokens:
    """Tokens first .. last - 1, with the keys up to the last of them.

    Raises:
        NotImplementedError: when a layer takes a per-token argument that is not known here.
    """

    def cut(part: torch.Tensor) -> torch.Tensor:
        return part[..., first:last, :]

    length, num_keys = tokens.masks[0].shape[-2:]
    end = num_keys - length + last
    # Most layers are given the very same tensors: these are cut once.
    values = {(name, id(value)): value for of_layer in tokens.arguments for name, value in of_layer.items()}
    cuts = {key: cut_argument(key[0], value, length, cut) for key, value in values.items()}
    arguments = [{name: cuts[name, id(value)] for name, value in of_layer.items()} for of_layer in tokens.arguments]
    masks = {id(mask): mask[:, :, first:last, :end] for mask in tokens.masks}
    return Tokens(arguments, [masks[id(mask)] for mask in tokens.masks], [None] * len(tokens.masks))


def run_rows(
    vlm: VLM,
    plans: Sequence[Plan],
    tokens: Tokens,
    context: Context,
    *,
    trace: LayerTrace | None = None,
    hidden: torch.Tensor | None = None,
    past: Sequence[KeysValues] | None = None,
) -> tuple[torch.Tensor, list[KeysValues]]:
    """Run rows through all decoder layers.

    Args:
        vlm: the model.
        plans: R plans, sorted by the first layer at which they differ.
        tokens: what the rows run.
        context: what they share.
        trace: the baseline that rows leave at their first different layer, a row each prompt; or
        hidden: (R, n, d) embeddings, when every row has tokens of its own from layer 0 on.
        past: per layer (R, H, m, D) keys and values of the rows' own earlier tokens.

    Returns:
        (R, n, d) outputs of the last layer, and per layer the rows' own keys and values (R, H, m + n, D).
    """
    num_rows, num_layers = len(plans), vlm.num_layers
    starts = [0 if trace is None else plan.first_layer(num_layers) for plan in plans]
    cache = RowCache(context, past)
    own: list[KeysValues] = []
    state = hidden
    plain: dict[int, torch.Tensor] = {}
    for layer_idx in range(num_layers):
        joined = sum(start <= layer_idx for start in starts)
        if trace is not None:
            state = _join(state, trace.hidden[layer_idx], joined, context)
            baseline = (trace.keys[layer_idx], trace.values[layer_idx])
        if state is None:
            own.append(_expand(baseline, 0, num_rows, context))
            continue
        reading = [(row, plans[row].reads[layer_idx]) for row in range(joined) if layer_idx in plans[row].reads]
        cache.reads = _together(reading)
        base = tokens.masks[layer_idx]
        mask = _mask(base, reading, joined, context)
        if mask is base:  # as in most layers: the model's form of it is made once
            if id(base) not in plain:
                plain[id(base)] = model_mask(vlm, base, state.dtype)
            mask = plain[id(base)]
        else:
            mask = model_mask(vlm, mask, state.dtype)
        state = run_layer(vlm, layer_idx, state, mask, cache, tokens)
        assert cache.own is not None, f"layer {layer_idx} did not use the cache"
        of_layer, cache.own = cache.own, None
        if joined < num_rows:  # rows still on the baseline have its keys and values
            rest = _expand(baseline, joined, num_rows, context)
            of_layer = (torch.cat([of_layer[0], rest[0]]), torch.cat([of_layer[1], rest[1]]))
        own.append(of_layer)
    if trace is not None:
        state = _join(state, trace.hidden[-1], num_rows, context)
    assert state is not None
    return state, own


def model_mask(vlm: VLM, mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A boolean mask (True = attend) as the model's layers take it."""
    return as_attention_mask(mask, vlm.model.config.get_text_config(decoder=True)._attn_implementation, dtype)


def run_layer(
    vlm: VLM, layer_idx: int, state: torch.Tensor, mask: torch.Tensor, cache: Any, tokens: Tokens
) -> torch.Tensor:
    """One decoder layer over (A, n, d), with what the model adds after it (DeepStack).

    Args:
        vlm: the model.
        layer_idx: which layer.
        state: (A, n, d) its input.
        mask: (1 or A, 1, n, K) in the model's form (`model_mask`).
        cache: its `update` gives the layer the keys and values to attend to.
        tokens: positions and other arguments of the n tokens.
    """
    output = vlm.layers[layer_idx](
        state,
        attention_mask=mask,
        past_key_values=cache,
        use_cache=True,
        **tokens.arguments[layer_idx],
    )
    state, added = first_tensor(output), tokens.between[layer_idx]
    return state if added is None else state + added.to(state.device)


def _join(state: torch.Tensor | None, baseline: torch.Tensor, joined: int, context: Context) -> torch.Tensor | None:
    have = 0 if state is None else state.shape[0]
    if joined == have:
        return state
    fresh = context.of_rows(baseline, have, joined)
    return fresh if state is None else torch.cat([state.to(baseline.device), fresh])


def _together(reading: Sequence[tuple[int, ImageCache | None]]) -> list[tuple[slice, ImageCache]]:
    """Neighbouring rows that read the same image, so that its keys are copied to all of them at once."""
    groups = []
    # Neighbours keep the difference between a row and its place among those that read.
    numbered = [(row, row - place, image_cache) for place, (row, image_cache) in enumerate(reading)]
    for _, group in groupby(numbered, key=lambda entry: (entry[1], id(entry[2]))):
        rows = list(group)
        image_cache = rows[0][2]
        if image_cache is not None:
            groups.append((slice(rows[0][0], rows[-1][0] + 1), image_cache))
    return groups


def _expand(pair: KeysValues, first: int, last: int, context: Context) -> KeysValues:
    return context.of_rows(pair[0], first, last), context.of_rows(pair[1], first, last)


def _mask(
    base: torch.Tensor, reading: list[tuple[int, ImageCache | None]], rows: int, context: Context
) -> torch.Tensor:
    """(1, 1, n, K) of the plain model -> the same, or (A, 1, n, K [+ V]) where rows are told apart."""
    swapped = [row for row, image_cache in reading if image_cache is not None]
    hidden = [row for row, image_cache in reading if image_cache is None]
    apart = context.readers is not None and bool(swapped)
    if not hidden and not apart:
        return base
    slots = context.slots
    num_queries = base.shape[2]
    readers = context.readers
    reads = (
        torch.ones(num_queries, dtype=torch.bool, device=base.device) if readers is None else readers.to(base.device)
    )
    mask = base.repeat(rows, 1, 1, 1)
    seen = base[0, 0][:, slots]  # (n, V)
    appended = torch.zeros(rows, 1, num_queries, context.num_slots, dtype=torch.bool, device=base.device)
    for row in hidden + (swapped if apart else []):
        mask[row, 0][:, slots] = seen & ~reads[:, None]
    if not apart:
        return mask
    for row in swapped:
        appended[row, 0] = seen & reads[:, None]
    return torch.cat([mask, appended], dim=-1)
