"""What each question reads at each layer: one attention function, registered with transformers, after RoPE.

A packed row is a head (prefix and vision tokens) and slots of equal length that hold questions. The head sees itself; a
question sees the head and itself, and of the vision tokens those that its *reading* says: none, its own image's, or
another image's, appended as extra keys. Computed in these two parts, because a full mask over the row would be mostly
zeros and several times slower.

Legend: B images, H heads, S head tokens, V vision tokens, N slots, C tokens a slot, D head dimension.
"""

from dataclasses import dataclass

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

NONE, OWN, OTHER = 0, 1, 2
NAME = "vfl_micro_planting"


@dataclass(frozen=True)
class Layout:
    """Where things are in every row: the vision tokens, which end the head, and the length of a slot."""

    vision_start: int
    vision_end: int
    slot: int


def attend(scores: torch.Tensor, mask: torch.Tensor, scaling: float | None, like: torch.Tensor) -> torch.Tensor:
    """Attention weights of the allowed scores, at least in float32, given back in the dtype of `like`.

    Written out: at these sizes the CPU's fused kernel is several times slower, above all backward.
    """
    assert scaling is not None
    wide = torch.promote_types(scores.dtype, torch.float32)
    scores = (scores.to(wide) * scaling).masked_fill(~mask, torch.finfo(wide).min)
    return torch.softmax(scores, dim=-1).to(like.dtype)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # (B, H, S + N C, D)
    key: torch.Tensor,  # (B, Hkv, S + N C, D)
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # packed: (B, 1, N C, C) bool, who sees whom inside a slot
    *,
    layout: Layout | None = None,
    reading: torch.Tensor | None = None,  # (B, N C) of this layer; None: everybody reads the own image
    other: torch.Tensor | None = None,  # (B,) the image that OTHER means
    scaling: float | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Without a `layout` (an ordinary forward) this is transformers' sdpa."""
    if layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    assert attention_mask is not None
    key, value = repeat_kv(key, module.num_key_value_groups), repeat_kv(value, module.num_key_value_groups)
    batch, heads, total, size = query.shape
    start, end = layout.vision_start, layout.vision_end
    slots = (total - end) // layout.slot

    causal = torch.ones(end, end, dtype=torch.bool, device=query.device).tril()
    head = attend(query[:, :, :end] @ key[:, :, :end].transpose(-1, -2), causal, scaling, value) @ value[:, :, :end]

    asked = query[:, :, end:]
    seen_key, seen_value = key[:, :, :end], value[:, :, :end]
    if reading is not None:
        assert other is not None
        # Detached: the other image is a distraction, nothing should be learnt into it.
        seen_key = torch.cat([seen_key, key[other, :, start:end].detach()], dim=2)
        seen_value = torch.cat([seen_value, value[other, :, start:end].detach()], dim=2)

    def by_slot(x: torch.Tensor) -> torch.Tensor:
        return x[:, :, end:].reshape(batch, heads, slots, layout.slot, size)

    to_head = asked @ seen_key.transpose(-1, -2)  # (B, H, N C, S [+ V])
    to_self = (by_slot(query) @ by_slot(key).transpose(-1, -2)).flatten(2, 3)  # (B, H, N C, C)
    if reading is not None:
        reads = reading[:, None, :, None]
        vision = end - start
        allowed = [
            torch.ones_like(reads, dtype=torch.bool).expand(-1, -1, -1, start),
            (reads == OWN).expand(-1, -1, -1, vision),
            (reads == OTHER).expand(-1, -1, -1, vision),
        ]
    else:
        allowed = [torch.ones(end, dtype=torch.bool, device=query.device).expand(batch, 1, to_head.shape[2], end)]
    mask = torch.cat([*allowed, attention_mask], dim=-1)
    weights = attend(torch.cat([to_head, to_self], dim=-1), mask, scaling, value)
    width = to_head.shape[-1]
    out = weights[..., :width] @ seen_value
    local = weights[..., width:].reshape(batch, heads, slots, layout.slot, layout.slot)
    out = out + (local @ by_slot(value)).flatten(2, 3)
    return torch.cat([head, out], dim=2).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, packed_attention)
