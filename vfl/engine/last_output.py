"""The decoder's output at the last position, for which its last layer needs one query alone.

What a prompt is asked for is said at its last position. All layers but the last hand states on to later ones, so all
their positions are needed; the last one hands on its keys and values alone. Its attention, its output projection and
its feed-forward network then run for one position, in the backward pass as well.

Legend: B batch, T tokens, H key-value heads, K keys, D head dimension, d model width.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch

from vfl.engine.layer_hooks import layer_hooks
from vfl.engine.layer_inputs import OWN_ARGUMENTS, cut_argument
from vfl.models.vlm import VLM


class _ReachedError(Exception):
    """Ends a layer once its keys and values are known."""


class _Catch:
    """A cache that takes a layer's keys and values, those before them included, and lets it go no further."""

    def __init__(self, cache: Any) -> None:
        self.cache = cache
        self.pair: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        self.pair = (keys, values) if self.cache is None else self.cache.update(keys, values, layer_idx)
        raise _ReachedError

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0 if self.cache is None else int(self.cache.get_seq_length(layer_idx))


class _Known:
    """A cache that holds all keys and values (B, H, K, D), those of the position that runs included."""

    def __init__(self, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
        self.pair = pair

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        return self.pair

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return int(self.pair[0].shape[2]) - 1


def last_output(vlm: VLM, arguments: Mapping[str, Any], cache: Any = None) -> torch.Tensor:
    """(B, d) output of the decoder, after its final norm, at the last position.

    Args:
        vlm: the model.
        arguments: the decoder's, for T tokens; those of `decoder_inputs`.
        cache: keys and values before them, which gets theirs in all layers; None where none are kept.
    """

    def enter(
        layer_idx: int, state: torch.Tensor, given: Mapping[str, Any]
    ) -> tuple[torch.Tensor, Mapping[str, Any]] | None:
        return on_last_position(vlm, layer_idx, state, given)

    rows = dict(arguments) if cache is None else {**arguments, "past_key_values": cache}
    whole = arguments["inputs_embeds"].shape[1] == 1 or _adds_to_last(vlm, arguments)
    with layer_hooks(vlm.layers, None if whole else enter, only={vlm.num_layers - 1}):
        output = vlm.parts.decoder(**rows, use_cache=cache is not None)
    last: torch.Tensor = output.last_hidden_state[:, -1]
    return last


def on_last_position(
    vlm: VLM, layer_idx: int, state: torch.Tensor, given: Mapping[str, Any]
) -> tuple[torch.Tensor, Mapping[str, Any]] | None:
    """A layer's input and arguments for its last position alone, all keys and values being made already.

    Args:
        vlm: the model.
        layer_idx: which layer.
        state: (B, T, d) its input.
        given: its other arguments; a cache among them gets the keys and values.

    Returns:
        (B, 1, d) and the arguments; None for a layer that has no keys of its own to be caught.
    """
    length = state.shape[1]
    catch = _Catch(given.get("past_key_values"))
    with suppress(_ReachedError):
        vlm.layers[layer_idx](state, **{**given, "past_key_values": catch, "use_cache": True})
    if catch.pair is None:
        return None

    def last(part: torch.Tensor) -> torch.Tensor:
        return part[..., -1:, :]

    cut = {
        name: value if name in OWN_ARGUMENTS else cut_argument(name, value, length, last)
        for name, value in given.items()
    }
    mask = given.get("attention_mask")
    if mask is not None and mask.ndim == 4:  # (B or 1, 1, T, K); other forms hold keys alone
        cut["attention_mask"] = last(mask)
    return state[:, -1:], cut | {"past_key_values": _Known(catch.pair)}


def _adds_to_last(vlm: VLM, arguments: Mapping[str, Any]) -> bool:
    """Whether the model adds vision features (DeepStack) to what its last layer returns at all positions."""
    features = arguments.get("deepstack_visual_embeds")
    return features is not None and len(features) >= vlm.num_layers
