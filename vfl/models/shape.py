"""The sizes of a model that its costs follow from: read off its modules, which may be on the meta device."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from vfl.errors import InputError
from vfl.models.discover import Parts, discover
from vfl.models.towers import under, vision_and_projector

ATTENTION_AND_MLP = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_ENTERING = ("q_proj", "k_proj", "v_proj", "qkv_proj")
# Parts of a model beside those that read a picture.
_IDLE = ("video_tower", "vqmodel", "generation_")
# How configurations say how many patches become one vision token: the key, and patches from its value.
_MERGES = {
    "spatial_merge_size": lambda value: value**2,
    "scale_factor": lambda value: value**2,
    "downsample_factor": lambda value: value**2,
    "hidden_stride": lambda value: value**2,
    "pooling_kernel_size": lambda value: value**2,
    "downsample_ratio": lambda value: round(value**-2),
    "pixel_shuffle_ratio": lambda value: round(value**-2),
}


@dataclass(frozen=True, kw_only=True)
class TowerShape:
    """The vision (or audio) tower with its projector.

    Attributes:
        per_patch, per_token: multiply-adds of a patch in the tower, of a vision token in the projector.
        blocks, width: attention blocks, and numbers of a patch's state.
        patches_per_token: patches that become one vision token.
        tile: patches of a tile, where pictures are cut into such; None where they keep a grid of their own.
        extra: further tokens of a tile (CLIP's class token).
        window: patches along a side of a window that the attention of some blocks stays in, or None.
        whole: blocks whose attention does not.
        side: pixels along a side of a vision token.
    """

    per_patch: int
    per_token: int
    blocks: int
    width: int
    patches_per_token: int
    tile: int | None
    extra: int
    window: int | None
    whole: int
    side: int


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model's sizes.

    Attributes:
        linear: for each decoder layer the multiply-adds of a token in its matrices; of experts, those that it takes.
        entering: of these, those of one layer that read its input (queries, keys, values).
        lora: for each layer the trained numbers of LoRA of rank 1 in attention and MLP.
        lora_entering: of these, the factors of one layer that read its input.
        hidden, intermediate: width of the decoder, and of its MLP (of all experts that a token takes).
        heads, kv_heads, head_dim: of the attention.
        vocabulary: rows of the output head.
        parameters: all of them, shared ones once.
        quantized: those of them that four or eight bits replace: matrices of the decoder layers.
    """

    family: str
    linear: tuple[int, ...]
    entering: int
    lora: tuple[int, ...]
    lora_entering: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    parameters: int
    quantized: int
    tower: TowerShape

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return len(self.linear)

    @property
    def attention(self) -> int:
        """Numbers of a token's queries."""
        return self.heads * self.head_dim


@dataclass(frozen=True)
class Picture:
    """What one picture is to a model: vision tokens, the grid that they stand in, and its tiles (1 without tiles)."""

    tokens: int
    grid: tuple[int, int]
    tiles: int


def shape_of(model: PreTrainedModel, family: str = "") -> Shape:
    """The sizes of a model, on any device.

    Raises:
        InputError: when its parts are not found.
    """
    parts = discover(model)
    text = model.config.get_text_config(decoder=True)
    heads = text.num_attention_heads
    inside = (pair for pair in parts.layers[0].named_modules() if isinstance(pair[1], nn.Linear))
    short: dict[str, Any] = {name.rpartition(".")[2]: module for name, module in inside}
    # Off the modules where they have the usual names: configurations of mixed layers name no single size.
    head_dim = short["q_proj"].out_features // heads if "q_proj" in short else text.hidden_size // heads
    kv_heads = short["k_proj"].out_features // head_dim if "k_proj" in short else text.num_key_value_heads
    num_experts = _experts_of_a_token(text)
    head: Any = parts.head
    return Shape(
        family=family,
        linear=tuple(_multiplications(layer, num_experts) for layer in parts.layers),
        entering=sum(short[name].weight.numel() for name in _ENTERING if name in short),
        lora=tuple(sum(_factors(layer)) for layer in parts.layers),
        lora_entering=sum(short[name].in_features for name in _ENTERING if name in short),
        hidden=text.hidden_size,
        intermediate=_multiplications(parts.layers[-1], num_experts, but="attn") // (3 * text.hidden_size),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=int(head.weight.shape[0]),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        quantized=sum(m.weight.numel() for m in parts.layers.modules() if isinstance(m, nn.Linear)),
        tower=_tower(model, parts),
    )


def picture_of(shape: Shape, tokens: int | None, size: tuple[int, int], max_pixels: int | None = None) -> Picture:
    """A picture of so many vision tokens, else of `size`, (width, height) in pixels.

    Where a model cuts pictures into tiles, one of unknown tokens is one tile.
    """
    tower = shape.tower
    if tower.tile is not None:
        of_tile = max(1, tower.tile // tower.patches_per_token)
        tiles = 1 if tokens is None else max(1, tokens // of_tile)  # markers between tiles are tokens too
        side = math.isqrt(of_tile)
        return Picture(of_tile if tokens is None else tokens, (side, side), tiles)
    if tokens is not None:
        height = max(1, math.isqrt(tokens))
        return Picture(tokens, (height, max(1, round(tokens / height))), 1)
    width, height = size
    shrunk = min(1.0, math.sqrt(max_pixels / (width * height))) if max_pixels else 1.0
    grid = tuple(max(1, round(pixels * shrunk / tower.side)) for pixels in (height, width))
    return Picture(grid[0] * grid[1], (grid[0], grid[1]), 1)


def _experts_of_a_token(text: Any) -> int:
    """Experts that each token takes; Transformers runs all of Llama 4's on every token."""
    if text.model_type == "llama4_text":
        return int(text.num_local_experts)
    return int(getattr(text, "num_experts_per_tok", None) or getattr(text, "top_k_experts", None) or 1)


def _multiplications(layer: nn.Module, num_experts: int, but: str = "\n") -> int:
    """Multiply-adds of a token: matrices whole, of stacked experts those that a token takes; some left out by name."""
    return sum(
        parameter.numel() * num_experts // parameter.shape[0] if parameter.dim() == 3 else parameter.numel()
        for name, parameter in layer.named_parameters()
        if parameter.dim() >= 2 and but not in name
    )


def _factors(layer: nn.Module) -> Iterator[int]:
    for name, module in layer.named_modules():
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in ATTENTION_AND_MLP:
            yield module.in_features + module.out_features


def _tower(model: PreTrainedModel, parts: Parts) -> TowerShape:
    vision, projector = vision_and_projector(model, parts)
    names = {id(module): name for name, module in reversed(list(model.named_modules()))}
    config = model.config
    settings: Any = getattr(config, "vision_config", None)
    if not vision:
        heard = model.get_encoder(modality="audio")
        if heard is model or heard is parts.body:
            raise InputError(f"No vision tower was found on {type(model).__name__}, so its costs can't be told.")
        vision, settings = [names[id(heard)]], config.audio_config
    per_patch = per_token = 0
    for name, module in model.named_modules():
        if any(idle in name for idle in _IDLE):
            continue
        own = module.named_parameters(recurse=False)
        read = isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
        count = sum(weight.numel() for key, weight in own if weight.dim() > 1 and (read or "projection" in key))
        if under(name, projector):
            per_token += count
        elif under(name, vision):
            per_patch += count
    blocks = getattr(settings, "depth", None) or getattr(settings, "num_hidden_layers", None) or 0
    blocks = blocks or getattr(settings, "encoder_layers", 0)
    width = getattr(settings, "embed_dim", None) or getattr(settings, "d_model", None) or settings.hidden_size
    per_side = _first(getattr(settings, "patch_size", 1))
    merged, free = _merge(config, settings, per_side)
    window = getattr(settings, "window_size", None) if hasattr(settings, "fullatt_block_indexes") else None
    extra = any(name.endswith(("class_embedding", "cls_token")) for name, _ in model.named_parameters())
    return TowerShape(
        per_patch=per_patch,
        per_token=per_token,
        blocks=blocks,
        width=width,
        patches_per_token=merged,
        tile=None if free else _tile(settings, per_side),
        extra=int(extra),
        window=window // per_side if window else None,
        whole=len(settings.fullatt_block_indexes) if window else blocks,
        side=per_side * math.isqrt(merged),
    )


def _merge(config: Any, settings: Any, patch: int) -> tuple[int, bool]:
    """Patches that become a vision token, and whether pictures keep a grid of their own."""
    for holder in (settings, config):
        for key, patches in _MERGES.items():
            value = getattr(holder, key, None)
            if value:
                return int(patches(value)), key in ("spatial_merge_size", "pooling_kernel_size")
    tokens = getattr(config, "mm_tokens_per_image", None)
    if tokens:
        return int((_first(settings.image_size) // patch) ** 2 // tokens), False
    return (2 if hasattr(settings, "max_source_positions") else 1), False


def _tile(settings: Any, patch: int) -> int:
    if hasattr(settings, "max_source_positions"):  # sounds are padded to all of these
        return int(settings.max_source_positions)
    return (_first(settings.image_size) // patch) ** 2


def _first(size: Any) -> int:
    """Of a square, given as one side or as two."""
    return int(size[0] if isinstance(size, list | tuple) else size)
