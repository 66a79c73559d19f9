"""Prompts under edits of single layers: what edits have in common runs once.

A row is a prompt with an edit at some layers. It leaves the plain model at the first of them, and rows whose edits have
been the same so far are one until they part. Shapes: P prompts, R rows, C branches that run at a layer, T tokens, H
key-value heads, D head dimension, d model width.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import DynamicCache

from vfl.engine.decoder_inputs import joined_inputs
from vfl.engine.last_output import on_last_position
from vfl.engine.layer_hooks import first_tensor
from vfl.engine.layer_trace import LayerTrace, trace_prompt, watch
from vfl.engine.rows import KeysValues, Tokens, model_mask, run_layer
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

# What a layer does to a row, None for nothing; rows of one prompt with equal edits up to a layer are the same there.
Edits = Sequence[Hashable | None]


class _Keep:
    """A cache for one layer at a time over whole prompts."""

    def __init__(self) -> None:
        self.pair: KeysValues | None = None

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> KeysValues:
        self.pair = (keys, values)
        return self.pair

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0


@torch.no_grad()
def branching(
    vlm: VLM,
    prompts: Sequence[Encoded],
    rows: Sequence[tuple[int, Edits]],
    choose: Callable[[Sequence[int]], None],
    *,
    whole: bool = False,
) -> tuple[torch.Tensor, DynamicCache]:
    """Run rows through all layers.

    Args:
        vlm: the model; whatever makes the edits is in place.
        prompts: P prompts that are alike, with the same positions and spans.
        rows: R prompts by number, each with its edits, one a layer.
        choose: told, before a layer runs, the rows that stand for its branches: their edits are to be made.
        whole: the last layer runs at all positions, where an edit there rests on other queries than the last.

    Returns:
        (R, vocabulary) logits at the last position, and the keys and values of the rows.
    """
    choose([])  # nothing is edited in the plain model
    trace = _trace(vlm, prompts)
    cache, keep = DynamicCache(), _Keep()
    state = trace.hidden[0][:0]
    before = [-1] * len(rows)  # each row's branch at the layer below; -1 is the plain model
    for layer_idx in range(vlm.num_layers):
        branches: dict[Hashable, int] = {}
        chosen: list[int] = []
        now = list(before)
        for number, (owner, edits) in enumerate(rows):
            if before[number] < 0 and edits[layer_idx] is None:
                continue
            key = (owner, before[number], edits[layer_idx])
            if key not in branches:
                branches[key] = len(chosen)
                chosen.append(number)
            now[number] = branches[key]
        if chosen:
            owners = [rows[number][0] for number in chosen]
            state = _entering(trace.hidden[layer_idx], state, owners, [before[number] for number in chosen])
            choose(chosen)
            state = _layer(vlm, layer_idx, state, trace, owners, keep, whole=whole)
        cache.update(*_of_rows(trace, layer_idx, keep.pair if chosen else None, rows, now), layer_idx)
        before = now
    ends = trace.hidden[-1][:, -1:]
    last = _entering(ends, state[:, -1:], [owner for owner, _ in rows], before)
    return vlm.logits(last[:, -1]), cache


def _trace(vlm: VLM, prompts: Sequence[Encoded]) -> LayerTrace:
    """The plain model over whole prompts, a row each; positions and masks are those of the first."""
    first = trace_prompt(vlm, prompts[0])
    if len(prompts) == 1:
        return first
    cache = DynamicCache()
    with watch(vlm.layers) as watched:
        vlm.parts.decoder(**joined_inputs(vlm, prompts), past_key_values=cache, use_cache=True)
    return replace(watched.trace(0, cache), arguments=first.arguments, masks=first.masks)


def _entering(plain: torch.Tensor, state: torch.Tensor, owners: Sequence[int], before: Sequence[int]) -> torch.Tensor:
    """(C, T, d) what branches start from: (P, T, d) of their prompt where `before` is -1, else of that branch."""
    whole = torch.cat([plain, state.to(plain.device)])
    places = [owner if branch < 0 else len(plain) + branch for owner, branch in zip(owners, before, strict=True)]
    return whole[torch.tensor(places, device=whole.device)]


def _layer(
    vlm: VLM, layer_idx: int, state: torch.Tensor, trace: LayerTrace, owners: Sequence[int], keep: _Keep, *, whole: bool
) -> torch.Tensor:
    """One layer over C branches: (C, T, d), or (C, 1, d) of the last one."""
    mask, between = model_mask(vlm, trace.masks[layer_idx], state.dtype), trace.between[layer_idx]
    if between is None and not whole and layer_idx == vlm.num_layers - 1 and state.shape[1] > 1:
        given = {
            **trace.arguments[layer_idx],
            "attention_mask": mask,
            "past_key_values": keep,
            "use_cache": True,
        }
        entering = on_last_position(vlm, layer_idx, state, given)
        if entering is not None:
            last, arguments = entering
            return first_tensor(vlm.layers[layer_idx](last, **arguments))
    added = None if between is None else between[torch.tensor(owners, device=between.device)]
    tokens = Tokens(trace.arguments, trace.masks, [added] * vlm.num_layers)
    return run_layer(vlm, layer_idx, state, mask, keep, tokens)


def _of_rows(
    trace: LayerTrace, layer_idx: int, own: KeysValues | None, rows: Sequence[tuple[int, Edits]], now: Sequence[int]
) -> KeysValues:
    """(R, H, T, D) keys and values of all rows at a layer, of their prompt in the plain model or of their branch."""
    plain = trace.keys[layer_idx], trace.values[layer_idx]
    places = [owner if branch < 0 else len(plain[0]) + branch for (owner, _), branch in zip(rows, now, strict=True)]
    index = torch.tensor(places, device=plain[0].device)
    keys, values = plain if own is None else (torch.cat([plain[0], own[0]]), torch.cat([plain[1], own[1]]))
    return keys[index], values[index]
