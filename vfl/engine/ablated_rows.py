"""Ablated rows that run beside a plain forward, layer by layer: nothing of a layer is kept longer than the layer runs.

Each row recomputes its conversation's window alone and reads the plain forward's keys and values before it. All rows of
a layer run in one call.

Shapes: B conversations, R with a window, J ablations that have joined, n tokens of a window, P positions before the
windows, V vision tokens, H key-value heads, T tokens, D head dimension, d model width.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from vfl.engine.layer_hooks import layer_hooks
from vfl.engine.rows import KeysValues, Tokens, model_mask, run_layer
from vfl.engine.shared_keys import PassingCache, SharedKeys
from vfl.engine.window_inputs import WindowArguments, WindowMasks
from vfl.engine.windows import Windows, at
from vfl.models.vlm import VLM


class AblatedRows:
    """The rows of a batch's ablations, to be told of every layer of the plain forward.

    Args:
        vlm: the model.
        windows: what the rows recompute.
        layers: for each ablation its layers, sorted by the lowest; none may be empty.
        replaced: per ablated layer, other keys and values (R, H, V, D) for the vision tokens; without, they are hidden.

    Attributes:
        state: (R, J, n, d) input of the next layer; after the last layer its output, with all ablations joined.
    """

    def __init__(
        self, vlm: VLM, windows: Windows, layers: Sequence[Collection[int]], replaced: Mapping[int, KeysValues] | None
    ) -> None:
        self.vlm, self.windows, self.layers, self.replaced = vlm, windows, layers, replaced or {}
        self.state: torch.Tensor | None = None
        self._starts = [min(chosen) for chosen in layers]
        self._masks = WindowMasks(windows, hides=replaced is None)
        self._window_arguments = WindowArguments(windows)
        self._previous: torch.Tensor | None = None

    def before(self, layer_idx: int, hidden: torch.Tensor) -> None:
        """Take in what the model added since the last layer (DeepStack), and the ablations that start at this one."""
        joined = sum(start <= layer_idx for start in self._starts)
        state, previous = self.state, self._previous
        self._previous = None
        if state is not None and previous is not hidden:
            assert previous is not None
            state = state.to(hidden.device) + (self._cut(hidden) - self._cut(previous).to(hidden.device))[:, None]
        have = 0 if state is None else state.shape[1]
        if joined > have:
            fresh = self._cut(hidden)[:, None].expand(-1, joined - have, -1, -1)
            state = fresh if state is None else torch.cat([state, fresh], dim=1)
        self.state = state

    def after(self, layer_idx: int, output: torch.Tensor, arguments: Mapping[str, Any], pair: KeysValues) -> None:
        """Run the layer over the joined rows, with the plain forward's arguments, keys and values (B, H, T, D)."""
        if self.state is None:
            return
        self._previous = output
        num_rows, joined, num_tokens, width = self.state.shape
        ablated = [layer_idx in chosen for chosen in self.layers[:joined]]
        copies = 1 if joined * num_tokens <= self.windows.shared else joined
        replaced = self.replaced[layer_idx] if self.replaced and any(ablated) else None
        mask = self._masks(arguments.get("attention_mask"), output, ablated, copies)
        cache = SharedKeys(self._before(pair), replaced, copies)
        of_windows = self._window_arguments(arguments, output.shape[1], joined, copies)
        num_layers = self.vlm.num_layers
        tokens = Tokens([of_windows] * num_layers, [mask] * num_layers, [None] * num_layers)
        state = self.state.flatten(1, 2) if copies == 1 else self.state.flatten(0, 1)
        state = run_layer(self.vlm, layer_idx, state, model_mask(self.vlm, mask, state.dtype), cache, tokens)
        self.state = state.view(num_rows, joined, num_tokens, width)

    def _cut(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, T, d) -> (R, n, d)."""
        return at(hidden, self.windows.rows, self.windows.places)

    def _before(self, pair: KeysValues) -> KeysValues:
        """(B, H, T, D) keys and values -> (R, H, P, D)."""
        rows, shared = self.windows.rows.to(pair[0].device), self.windows.shared
        keys, values = pair[0][:, :, :shared], pair[1][:, :, :shared]
        return (keys, values) if len(rows) == len(keys) else (keys[rows], values[rows])


@torch.no_grad()
def run_with_ablated(vlm: VLM, inputs: Mapping[str, Any], ablated: AblatedRows | None) -> torch.Tensor:
    """One plain forward of the decoder with ablated rows beside it; (B, T, d) outputs of its last layer."""
    cache = PassingCache()
    outputs: list[torch.Tensor] = []

    def enter(layer_idx: int, hidden: torch.Tensor, arguments: Mapping[str, Any]) -> None:
        if ablated is not None:
            ablated.before(layer_idx, hidden)

    def leave(layer_idx: int, output: torch.Tensor, arguments: Mapping[str, Any]) -> None:
        outputs[:] = [output]
        if ablated is not None:
            ablated.after(layer_idx, output, arguments, cache.take())

    with layer_hooks(vlm.layers, enter, leave):
        vlm.parts.decoder(**inputs, past_key_values=cache, use_cache=True)
    return outputs[0]


@torch.no_grad()
def slot_keys(
    vlm: VLM, inputs: Mapping[str, Any], places: torch.Tensor, rows: torch.Tensor, layers: Collection[int]
) -> dict[int, KeysValues]:
    """Per layer of `layers`, the keys and values (R, H, V, D) at `places` (R, V) of one plain forward's `rows`."""
    cache = PassingCache()
    pairs: dict[int, KeysValues] = {}

    def leave(layer_idx: int, output: torch.Tensor, arguments: Mapping[str, Any]) -> None:
        keys, values = cache.take()
        if layer_idx in layers:
            keys, values = (at(part.transpose(0, 1), rows, places).transpose(0, 1) for part in (keys, values))
            pairs[layer_idx] = (keys, values)

    with layer_hooks(vlm.layers, leave=leave):
        vlm.parts.decoder(**inputs, past_key_values=cache, use_cache=True)
    return pairs
