"""Text after the image that skips the first layers, while the vision tokens run through all of them.

    late_text(k)   the embeddings of the text after the image, the answer's too, enter at layer k

The control of late entry (vfl/engine/derived_caches.py). No mask is needed: nothing before the text sees it, and what
its own states are below layer k is thrown away. The text before the image runs as ever, since the image reads it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from vfl.engine.layer_hooks import layer_hooks
from vfl.errors import InputError
from vfl.models.vlm import VLM


@contextmanager
def late_text(vlm: VLM, first: int) -> Iterator[None]:
    """What runs through the layers within is text that enters at layer `first`; 0 changes nothing.

    Only for passes over tokens after the image: a sweep with the prompt's own image cache, of plans that differ from
    layer 0 on or not at all.

    Raises:
        InputError: for a layer that the model lacks.
    """
    if not 0 <= first <= vlm.num_layers:
        raise InputError(f"Layer {first} was given for text; the model has {vlm.num_layers}: 0 to {vlm.num_layers}.")
    embedded: list[torch.Tensor] = []

    def keep(layer_idx: int, state: torch.Tensor, arguments: Mapping[str, Any]) -> None:
        if layer_idx == 0:
            embedded[:] = [state]

    def enter(layer_idx: int, output: torch.Tensor, arguments: Mapping[str, Any]) -> torch.Tensor | None:
        return embedded[0].to(output) if layer_idx == first - 1 else None

    with layer_hooks(vlm.layers, keep, enter, only={0, first - 1} if first else ()):
        yield
