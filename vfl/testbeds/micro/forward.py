"""The training forward: the model's own modules, whole batches at once.

The vision tower of transformers runs its attention image by image; here all images have the same grid, so one batched
pass over the same submodules gives the same features (tested in float64). The decoder layers are called as they are,
with the planting tap as their attention.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch.nn.functional import linear
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VLDecoderLayer,
    Qwen2_5_VLVisionBlock,
    apply_rotary_pos_emb_vision,
)

from vfl.engine.attention_tap import attention_of
from vfl.probes import micro_limits as style
from vfl.testbeds.micro.packing import Rows
from vfl.testbeds.micro.processor import MERGE, PATCH
from vfl.testbeds.micro.tap import NAME, Layout, attend

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])


def patchify(images: torch.Tensor) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, patches, 384): the image processor's normalisation and patch order, batched."""
    x = (images.float() / 255.0 - MEAN.to(images.device)) / STD.to(images.device)
    batch, grid = len(x), style.SIZE // PATCH
    x = x.permute(0, 3, 1, 2).reshape(batch, 3, grid // MERGE, MERGE, PATCH, grid // MERGE, MERGE, PATCH)
    x = x.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)
    return x.reshape(batch, grid * grid, 3 * 2 * PATCH * PATCH)


def vision_positions(device: torch.device) -> torch.Tensor:
    """(patches, 2) row and column of each patch, in the processor's order (2 x 2 groups together)."""
    grid = style.SIZE // PATCH
    rows = torch.arange(grid, device=device)[:, None].expand(grid, grid)
    groups = (grid // MERGE, MERGE, grid // MERGE, MERGE)
    return torch.stack([at.reshape(groups).permute(0, 2, 1, 3).flatten() for at in (rows, rows.T)], dim=-1)


def vision_block(block: Qwen2_5_VLVisionBlock, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """One block of the vision tower over (B, patches, channels), every image attending to itself."""
    attention = block.attn
    batch, patches, width = x.shape
    qkv = attention.qkv(block.norm1(x)).reshape(batch, patches, 3, attention.num_heads, -1)
    q, k, v = qkv.unbind(2)  # (B, patches, H, D)
    q, k = apply_rotary_pos_emb_vision(q, k, cos, sin)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    everything = torch.ones(patches, patches, dtype=torch.bool, device=x.device)
    weights = attend(q @ k.transpose(-1, -2), everything, attention.scaling, v)
    x = x + attention.proj((weights @ v).transpose(1, 2).reshape(batch, patches, width))
    return x + block.mlp(block.norm2(x))


def decoder_layer(
    layer: Qwen2_5_VLDecoderLayer,
    hidden: torch.Tensor,
    mask: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    layout: Layout,
    reading: torch.Tensor | None,
    other: torch.Tensor | None,
) -> torch.Tensor:
    return layer(
        hidden, attention_mask=mask, position_embeddings=(cos, sin), layout=layout, reading=reading, other=other
    )


class Forward:
    """A model's training forward. `compiled` fuses each block (CPU or GPU); the numbers agree up to rounding."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, compiled: bool = False) -> None:
        self.model = model
        self.visual, self.text = model.model.visual, model.model.language_model
        wrap: Callable = torch.compile if compiled else lambda function: function
        self.vision_block, self.decoder_layer = wrap(vision_block), wrap(decoder_layer)

    def vision(self, images: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) uint8 -> (B, vision tokens, width)."""
        patches = patchify(images)
        kernel = self.visual.patch_embed.proj.weight
        x = linear(patches.to(kernel.dtype), kernel.flatten(1))
        cos, sin = self.visual.rotary_pos_emb(x, vision_positions(images.device))
        for block in self.visual.blocks:
            x = self.vision_block(block, x, cos, sin)
        return self.visual.merger(x).reshape(len(images), -1, self.text.config.hidden_size)

    def decode(
        self, features: torch.Tensor, rows: Rows, readings: torch.Tensor | None, other: torch.Tensor | None
    ) -> torch.Tensor:
        """Final hidden states (B, T, width); `readings` (L, B, N C) as drawn by planting, `other` (B,)."""
        start, end = rows.layout.vision_start, rows.layout.vision_end
        embeds = self.text.embed_tokens(rows.input_ids)
        hidden = torch.cat([embeds[:, :start], features.to(embeds.dtype), embeds[:, end:]], dim=1)
        cos, sin = self.text.rotary_emb(hidden, rows.positions)
        mask = rows.mask()
        for index, layer in enumerate(self.text.layers):
            reading = None if readings is None else readings[index]
            hidden = self.decoder_layer(layer, hidden, mask, cos, sin, rows.layout, reading, other)
        return self.text.norm(hidden)

    def name(self, features: torch.Tensor) -> torch.Tensor:
        """What the model's own output layer would call each vision token: (B, vision tokens, vocabulary)."""
        return self.model.lm_head(self.text.norm(features)).float()

    def answer_logits(self, hidden: torch.Tensor, rows: Rows) -> torch.Tensor:
        """Logits at the positions that predict an answer token, in row-major order: (answer tokens, vocabulary)."""
        return self.model.lm_head(hidden[rows.labels >= 0]).float()


def tapped(model: Qwen2_5_VLForConditionalGeneration) -> AbstractContextManager[None]:
    """The decoder reads through the planting tap inside; afterwards its attention is what it was."""
    return attention_of(model.model.language_model.config, NAME)
