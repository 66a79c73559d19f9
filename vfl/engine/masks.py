"""What an attention mask shows: one meaning for its three forms (none, boolean, additive).

Legend: B batch, Q queries of the pass, which are the last of K keys.
"""

import torch


def seen_keys(
    mask: torch.Tensor | None, num_queries: int, num_keys: int, device: torch.device, *, causal: bool = True
) -> torch.Tensor:
    """Which keys each query sees.

    Args:
        mask: None, boolean (True = attend) or additive (B or 1, 1, Q, K). What hides in an additive mask is its type's
            lowest number or -inf; any other number is a bias on a key that is seen.
        num_queries: Q.
        num_keys: K.
        device: where the answer to None is made.
        causal: what None means: each query sees the keys up to its own; else all.

    Returns:
        Boolean, in the shape of the mask; (Q, K) for None.
    """
    if mask is None:
        seen = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device)
        return seen.tril(num_keys - num_queries) if causal else seen
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2


def plain_mask(mask: torch.Tensor | None, num_queries: int, num_keys: int, device: torch.device) -> torch.Tensor:
    """(B or 1, 1, Q, K) boolean, for passes that build masks of their own from a layer's.

    Raises:
        NotImplementedError: for a mask that also adds a bias, which those passes would lose.
    """
    if mask is None:
        return seen_keys(mask, num_queries, num_keys, device)[None, None]
    assert mask.shape[-2:] == (num_queries, num_keys), f"mask {tuple(mask.shape)}, {num_queries} x {num_keys} expected"
    seen = seen_keys(mask, num_queries, num_keys, device)
    if mask.dtype != torch.bool and bool(mask.masked_fill(~seen, 0).any()):
        raise NotImplementedError(
            "The decoder layers take an attention mask that adds a bias to some keys; how to carry that over to other "
            "rows is not known. Please report the model."
        )
    return seen


def blocked(mask: torch.Tensor | None, edges: torch.Tensor, *, causal: bool = True) -> torch.Tensor:
    """A mask with edges cut, whatever its form. Writing False into an additive mask would cut nothing: False is 0.0.

    Args:
        mask: None, bool (True = attend) or additive (B or 1, H or 1, Q, K).
        edges: (B or 1, 1, Q, K) bool, True = cut.
        causal: what None means, as in `seen_keys`.

    Returns:
        Bool for None and bool, additive for additive; -inf where a key can't be seen, so that a query without any
        other key does not fall back to the keys that are merely very unlikely.
    """
    num_queries, num_keys = edges.shape[-2:]
    seen = seen_keys(mask, num_queries, num_keys, edges.device, causal=causal)
    if mask is None or mask.dtype == torch.bool:
        return seen & ~edges
    return mask.masked_fill(~seen | edges, float("-inf"))


def as_attention_mask(seen: torch.Tensor, attention: str, dtype: torch.dtype) -> torch.Tensor:
    """A boolean mask (True = attend) as a model's attention takes it: additive, with the lowest number or -inf.

    PyTorch's own attention takes a boolean one too, but turns it into this on every call.
    """
    hidden = float("-inf") if attention == "sdpa" else torch.finfo(dtype).min
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, hidden)
