"""One tap into a decoder's attention, after RoPE, whatever the architecture: reads weights, blocks edges, scales heads.

Registered with transformers as an attention implementation together with its mask function; without the latter the
padding mask would silently be dropped. Only the decoder is switched, the vision tower keeps its own. What is not read
or edited runs through sdpa, so no pass holds a full attention matrix: one read row of 28 heads over 2,600 keys takes
0.3 MB a layer, plus the keys once in float32 (5 MB for 4 key-value heads of 128), where eager attention takes
28 x 2,600 x 2,600 x 2 bytes = 379 MB a layer in bfloat16, and `output_attentions` keeps that for every layer.

Legend: B batch, H query heads, G key-value heads, Q queries of the pass, K keys, R read rows, D head dimension.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from vfl.engine.masks import blocked, seen_keys
from vfl.models.vlm import VLM

NAME = "vfl_tap"
Reader = Callable[[int, torch.Tensor], None]
# (layer, output (B, Q, H, D), values (B, G, K, D), seen keys (B or 1, 1, Q, K)) -> output
Rewrite = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class BlockedEdges:
    """Attention knockout: at some layers, queries that can't read keys (the edges of every query to every key).

    Attributes:
        layers: where.
        queries: (B or 1, T) bool over positions; positions from T on are not blocked.
        keys: (B or 1, T) bool over positions; keys from T on stay readable.
        itself: whether a query's own key is blocked too; else it stays readable.
    """

    layers: frozenset[int]
    queries: torch.Tensor
    keys: torch.Tensor
    itself: bool = True


@contextmanager
def tapped(
    vlm: VLM,
    *,
    read: Reader | None = None,
    rows: Sequence[int] = (-1,),
    blocks: Sequence[BlockedEdges] = (),
    head_scale: Mapping[int, torch.Tensor] | None = None,
    rewrite: Rewrite | None = None,
) -> Iterator[None]:
    """Run the decoder's attention through the tap; the model's own implementation is back afterwards, come what may.

    A query whose every key is blocked reads nothing: its heads give zero.

    Args:
        vlm: the model.
        read: called as `read(layer, weights)` with (B, H, R, K) attention weights, in float32 or wider, after the
            edits; rows that see no key (padding) are zero. Reduce there: keep no more than you need.
        rows: which queries of each pass are read; negative ones count from the end.
        blocks: edges to cut.
        head_scale: layer -> (H,) factor of each head's output before the output projection; 0 removes a head.
        rewrite: called last as `rewrite(layer, output, values, seen)` with the heads' outputs (B, Q, H, D) before the
            output projection, the values (B, G, K, D) and which keys a query sees, (B or 1, 1, Q, K) bool; returns the
            outputs to go on with.

    Raises:
        RuntimeError: when the model is tapped already.

    Example:
        >>> with tapped(vlm, read=lambda layer, weights: print(layer, weights.shape)):  # doctest: +SKIP
        ...     forward(vlm, encoded)
    """
    config: Any = vlm.parts.decoder.config
    if id(config) in _ACTIVE:
        raise RuntimeError("the model is tapped already; read and edit through one tap")
    _ACTIVE[id(config)] = _Tap(read, tuple(rows), tuple(blocks), dict(head_scale or {}), rewrite)
    try:
        with attention_of(config, NAME):
            yield
    finally:
        del _ACTIVE[id(config)]


@contextmanager
def attention_of(config: Any, name: str) -> Iterator[None]:
    """The modules that hold this config attend by the registered function `name`; afterwards by their own again."""
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def row_weights(
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    rows: Sequence[int],
    *,
    scaling: float,
    softcap: float | None = None,
    causal: bool = True,
) -> torch.Tensor:
    """softmax(scaling q k^T + mask) of some queries.

    Args:
        query: (B, H, Q, D) after RoPE.
        key: (B, G, K, D) after RoPE, H a multiple of G.
        mask: None, bool (True = attend) or additive, broadcastable to (B, H, Q, K).
        rows: R queries.
        scaling: factor of the scores.
        softcap: c of c tanh(scores / c), where the model caps its scores.
        causal: what None means, as in `masks.seen_keys`.

    Returns:
        (B, H, R, K) in float32, or the model's type where that is wider; zero in rows that see nothing.
    """
    batch, heads, num_queries, size = query.shape
    groups, num_keys = key.shape[1:3]
    wide = torch.promote_types(query.dtype, torch.float32)
    chosen = torch.tensor([row % num_queries for row in rows], device=query.device)
    picked = query[:, :, chosen].to(wide).reshape(batch, groups, -1, size)  # (B, G, H/G R, D)
    scores = (picked @ key.to(wide).transpose(-1, -2)).view(batch, heads, len(rows), num_keys) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    seen = seen_keys(mask, num_queries, num_keys, query.device, causal=causal)
    if seen.shape[-2] > 1:
        seen = seen[..., chosen, :]
    if mask is not None and mask.dtype != torch.bool:
        scores = scores + (mask[..., chosen, :] if mask.shape[-2] > 1 else mask)
    weights = torch.softmax(scores.masked_fill(~seen, float("-inf")), dim=-1)
    return torch.where(seen.any(dim=-1, keepdim=True), weights, 0.0)


class _Tap:
    """The edits and the reader of one tapped model."""

    def __init__(
        self,
        read: Reader | None,
        rows: tuple[int, ...],
        blocks: tuple[BlockedEdges, ...],
        head_scale: dict[int, torch.Tensor],
        rewrite: Rewrite | None,
    ) -> None:
        self.read = read
        self.rows = rows
        self.blocks = blocks
        self.head_scale = head_scale
        self.rewrite = rewrite

    def edges(self, layer_idx: int, num_queries: int, num_keys: int, device: torch.device) -> torch.Tensor | None:
        """(B or 1, 1, Q, K) edges to cut at a layer, or None; queries are the last Q of the K positions."""
        cut = None
        for block in self.blocks:
            if layer_idx not in block.layers:
                continue
            queries = _fit(block.queries, num_keys, device)[:, num_keys - num_queries :]
            edges = queries[:, None, :, None] & _fit(block.keys, num_keys, device)[:, None, None, :]
            if not block.itself:
                edges &= ~torch.eye(num_keys, dtype=torch.bool, device=device)[num_keys - num_queries :]
            cut = edges if cut is None else cut | edges
        return cut


_ACTIVE: dict[int, _Tap] = {}  # by the id of the decoder's config, which its attention modules hold


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # (B, H, Q, D)
    key: torch.Tensor,  # (B, G, K, D)
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The registered attention function; returns (B, Q, H, D)."""
    tap = _ACTIVE[id(module.config)]
    layer_idx = int(module.layer_idx)  # type: ignore[arg-type]
    for name in ("s_aux", "position_bias"):
        if kwargs.get(name) is not None:
            raise NotImplementedError(f"attention with {name} is not known to the tap; please report the model")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    cut = tap.edges(layer_idx, query.shape[2], key.shape[2], query.device)
    if cut is not None:
        attention_mask = blocked(attention_mask, cut, causal=causal)
    options: dict[str, Any] = {"scaling": scaling, "softcap": softcap, "causal": causal}
    if tap.read is not None:
        tap.read(layer_idx, row_weights(query, key, attention_mask, tap.rows, **options))
    if softcap is None:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, is_causal=is_causal, **kwargs
        )
    else:  # sdpa has no soft cap
        weights = row_weights(query, key, attention_mask, range(query.shape[2]), **options).to(value.dtype)
        output = (weights @ repeat_kv(value, query.shape[1] // value.shape[1])).transpose(1, 2).contiguous()
    if layer_idx in tap.head_scale:
        output = output * tap.head_scale[layer_idx].to(output)[:, None]
    if tap.rewrite is not None:
        seen = seen_keys(attention_mask, query.shape[2], key.shape[2], query.device, causal=causal)
        output = tap.rewrite(layer_idx, output, value, seen.view(-1, 1, *seen.shape[-2:]))
    return output, None


def _fit(positions: torch.Tensor, length: int, device: torch.device) -> torch.Tensor:
    """(B, T) bool cut or filled with False to `length` positions."""
    positions = positions.to(device)[:, :length]
    return torch.nn.functional.pad(positions, (0, length - positions.shape[1]))


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
