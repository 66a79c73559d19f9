"""The decoder of the embedded model with LoRA in all layers, in few and large operations: what one core is fast at.

The same numbers as `vfl train`'s PEFT model up to rounding (tests/experiments/test_trials.py): q, k and v are one
product, gate and up another, and the adapters are added to the weights before they are used.

Shapes: B rows, T tokens, d width, H heads, K key-value heads, D head dimension.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import linear, rms_norm, silu
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import rotate_half

from vfl.models.vlm import VLM

MODULES = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
Pair = tuple[nn.Parameter, nn.Parameter]


@dataclass(frozen=True)
class Frozen:
    """Weights of one layer that training does not change."""

    qkv: torch.Tensor
    bias: torch.Tensor
    out: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor
    norms: tuple[torch.Tensor, torch.Tensor]


class FusedLora:
    """A decoder and its adapters.

    Args:
        vlm: the embedded model or one of its kind; it is only read.
        rank: of the adapters; alpha is the rank, so that they are added as they are.
    """

    def __init__(self, vlm: VLM, rank: int) -> None:
        text = vlm.model.model.language_model
        self.rank, self.text, self.head = rank, text, vlm.parts.head
        self.heads, self.kv_heads = text.config.num_attention_heads, text.config.num_key_value_heads
        self.epsilon, self.width = text.config.rms_norm_eps, text.config.hidden_size
        self.section = list(text.config.rope_parameters["mrope_section"])
        self.frozen = [_frozen(layer) for layer in text.layers]
        self.adapters: dict[tuple[int, str], Pair] = {}
        for index, layer in enumerate(text.layers):
            for name in MODULES:
                module = layer.get_submodule(name)
                down = nn.Parameter(torch.zeros(rank, module.in_features))
                self.adapters[index, name] = down, nn.Parameter(torch.zeros(module.out_features, rank))

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that is trained."""
        return [weight for pair in self.adapters.values() for weight in pair]

    @torch.no_grad()
    def restart(self, seed: int) -> None:
        """PEFT's first values: A uniform as a linear layer's, B zero."""
        generator = torch.Generator().manual_seed(seed)
        for down, up in self.adapters.values():
            bound = down.shape[1] ** -0.5
            down.uniform_(-bound, bound, generator=generator)
            up.zero_()

    def rotations(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(3, B, T) positions -> cosines and sines (B, T, D)."""
        with torch.no_grad():
            cos, sin = self.text.rotary_emb(torch.zeros(()), positions)
            if cos.dim() == 3:
                return cos, sin
            parts = self.section * 2
            cos, sin = (
                torch.cat([part[n % 3] for n, part in enumerate(one.split(parts, dim=-1))], dim=-1)
                for one in (cos, sin)
            )
        return cos, sin

    def hidden(self, embeddings: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """(B, T, d) embeddings, padded on the right, and rotations (B, T, D) -> outputs of the decoder (B, T, d)."""
        x, cos, sin = embeddings, cos[:, None], sin[:, None]
        length = x.shape[1]
        mask = torch.full((length, length), float("-inf")).triu(1)
        for index, frozen in enumerate(self.frozen):
            x = self._layer(x, frozen, self._changes(index), cos, sin, mask)
        return rms_norm(x, (self.width,), self.text.norm.weight, self.epsilon)

    def _changes(self, index: int) -> list[torch.Tensor]:
        return [up @ down for down, up in (self.adapters[index, name] for name in MODULES)]

    def _layer(
        self,
        x: torch.Tensor,
        frozen: Frozen,
        changes: list[torch.Tensor],
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor,
    ) -> torch.Tensor:
        rows, length, _ = x.shape
        heads, kv_heads, size = self.heads, self.kv_heads, cos.shape[-1]
        q_k_v, out, gate_up, down = torch.cat(changes[:3]), changes[3], torch.cat(changes[4:6]), changes[6]
        normed = rms_norm(x, (self.width,), frozen.norms[0], self.epsilon)
        mixed = linear(normed, frozen.qkv + q_k_v, frozen.bias).view(rows, length, -1, size).transpose(1, 2)
        query, key, value = mixed.split([heads, kv_heads, kv_heads], dim=1)
        query, key = query * cos + rotate_half(query) * sin, key * cos + rotate_half(key) * sin
        query = query.reshape(rows, kv_heads, -1, size)  # the heads that share a key, one after another
        scores = (query @ key.transpose(-1, -2) * size**-0.5).view(rows, heads, length, length) + mask
        weights = torch.softmax(scores, dim=-1).view(rows, kv_heads, -1, length)
        read = (weights @ value).view(rows, heads, length, size).transpose(1, 2).reshape(rows, length, -1)
        x = x + linear(read, frozen.out + out)
        normed = rms_norm(x, (self.width,), frozen.norms[1], self.epsilon)
        gate, up = linear(normed, frozen.gate_up + gate_up).chunk(2, dim=-1)
        return x + linear(silu(gate) * up, frozen.down + down)


def _frozen(layer: nn.Module) -> Frozen:
    modules = [layer.get_submodule(name) for name in MODULES]
    weights = [module.weight.detach() for module in modules]
    return Frozen(
        qkv=torch.cat(weights[:3]),
        bias=torch.cat([module.bias.detach() for module in modules[:3]]),
        out=weights[3],
        gate_up=torch.cat(weights[4:6]),
        down=weights[6],
        norms=(layer.input_layernorm.weight.detach(), layer.post_attention_layernorm.weight.detach()),
    )
