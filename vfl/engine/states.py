"""Hidden states between decoder layers, handed over one pair of layers at a time.

h[0] are the embeddings, h[l] is what layer l receives, and h[L] is what the last layer returns, before the final norm:
transformers' own `hidden_states[-1]` is after it, and a cosine against that compares two different spaces.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from vfl.engine.decoder_inputs import prompt_inputs
from vfl.engine.image_cache import slots_of
from vfl.engine.layer_hooks import layer_hooks
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

Visit = Callable[[int, torch.Tensor, torch.Tensor], None]


@torch.no_grad()
def forward(vlm: VLM, encoded: Encoded) -> None:
    """One plain pass over a prompt, for what the hooks and the tap see of it."""
    vlm.parts.decoder(**prompt_inputs(vlm, encoded), use_cache=False)


def is_vision(encoded: Encoded) -> torch.Tensor:
    """(T,) bool: positions in an image's span, marker text inside it included; the others are text."""
    vision = torch.zeros(encoded.length, dtype=torch.bool, device=encoded.input_ids.device)
    vision[slots_of(encoded.spans, vision.device)] = True
    return vision


def is_image_token(vlm: VLM, encoded: Encoded) -> torch.Tensor:
    """(T,) bool: placeholders that hold the projector's outputs; marker text between tiles or rows is left out."""
    return encoded.input_ids[0] == vlm.parts.image_token_id


@contextmanager
def between_layers(layers: nn.ModuleList, visit: Visit) -> Iterator[None]:
    """Call `visit(l, h[l], h[l+1])` for l = 0 .. L-1 during a pass; states are (B, T, d).

    Only one earlier state is kept. What a model adds between two layers (DeepStack) is part of h[l+1]. The hooks are
    gone afterwards, also after an exception.
    """
    last = len(layers) - 1
    before: list[torch.Tensor] = []

    def enter(layer_idx: int, state: torch.Tensor, arguments: Mapping[str, Any]) -> None:
        if layer_idx:
            visit(layer_idx - 1, before.pop(), state)
        else:
            before.clear()
        before.append(state)

    def leave(layer_idx: int, output: torch.Tensor, arguments: Mapping[str, Any]) -> None:
        if layer_idx == last:
            visit(last, before.pop(), output)

    with layer_hooks(layers, enter, leave):
        yield
