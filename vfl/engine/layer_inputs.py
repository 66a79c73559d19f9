"""A decoder layer's keyword arguments for some of its tokens: positions are cut, everything else is passed on."""

from collections.abc import Callable
from typing import Any

import torch

# What the engine sets itself when it calls a layer; everything else is passed on as captured.
OWN_ARGUMENTS = {"hidden_states", "attention_mask", "past_key_values", "use_cache"}


def cut_argument(name: str, value: Any, length: int, cut: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """One argument of a layer for fewer tokens.

    Args:
        name: its name.
        value: as the layer was given it for all T tokens.
        length: T.
        cut: (..., B or 1, T, D) -> the same of the tokens that are wanted.

    Raises:
        NotImplementedError: for another argument with an entry per token.
    """
    if name == "position_embeddings":  # cosines and sines, each (..., B or 1, T, D), or one complex tensor (Llama 4)
        return cut(value) if isinstance(value, torch.Tensor) else tuple(cut(part) for part in value)
    if name == "position_ids" and value is not None:  # (..., B or 1, T)
        return cut(value[..., None])[..., 0]
    if isinstance(value, torch.Tensor) and length in value.shape:
        raise NotImplementedError(
            f"The decoder layers take {name!r} of shape {tuple(value.shape)}, which holds one entry per token; "
            "how to cut it is not known. Please report the model."
        )
    return value
