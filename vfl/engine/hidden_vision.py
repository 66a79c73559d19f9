"""Transformers' own `generate` with the image hidden from the text at some layers: whole left-padded batches at a time.

`Plan.hide` says the same of one prompt with many plans; here are many prompts with one. A hook before each of these
layers takes the vision tokens out of what the text's queries see, in the prompt and in every later step. Vision tokens
see one another as ever, and nothing is left on the model.

Legend: B rows, T tokens of the prompts, Q queries of a pass, K keys.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import pad

from vfl.engine.layer_hooks import layer_hooks
from vfl.engine.masks import as_attention_mask, plain_mask
from vfl.engine.windows import find_all_spans
from vfl.errors import InputError
from vfl.models.vlm import VLM


@contextmanager
def vision_hidden(vlm: VLM, input_ids: torch.Tensor, layers: Collection[int]) -> Iterator[None]:
    """Within, the text of this batch, its prompts and what is generated after them, sees no vision tokens at `layers`.

    Args:
        vlm: the model.
        input_ids: (B, T) the prompts, padded on the left; rows without an image are not touched.
        layers: decoder layers; none of them leaves the model as it is.

    Raises:
        InputError: for a layer that the model does not have.
    """
    if outside := [layer for layer in sorted(layers) if not 0 <= layer < vlm.num_layers]:
        raise InputError(
            f"Layer {outside[0]} is to be hidden; the model has {vlm.num_layers}: 0 to {vlm.num_layers - 1}."
        )
    if not layers:
        yield
        return
    vision = torch.zeros(input_ids.shape, dtype=torch.bool, device=input_ids.device)
    for row, spans in enumerate(find_all_spans(vlm, input_ids)):
        for span in spans:
            vision[row, span.start : span.end] = True
    attention = vlm.model.config.get_text_config(decoder=True)._attn_implementation

    def enter(
        layer_idx: int, state: torch.Tensor, arguments: Mapping[str, Any]
    ) -> tuple[torch.Tensor, Mapping[str, Any]]:
        num_queries = state.shape[1]
        # A layer with a sliding window keeps the last keys alone: how many, and what stood before them.
        num_keys, gone = arguments["past_key_values"].get_mask_sizes(num_queries, layer_idx)
        end = gone + num_keys
        is_vision = pad(vision, (0, max(0, end - vision.shape[1]))).to(state.device)
        keys, queries = is_vision[:, gone:end], is_vision[:, end - num_queries : end]
        seen = plain_mask(arguments.get("attention_mask"), num_queries, num_keys, state.device)
        seen = seen & ~(~queries[:, None, :, None] & keys[:, None, None, :])
        return state, {**arguments, "attention_mask": as_attention_mask(seen, attention, state.dtype)}

    with layer_hooks(vlm.layers, enter, only=set(layers)):
        yield
