"""Image caches: every layer's keys and values of an image, computed once and read by any experiment.

Shapes: H key-value heads, S prefilled tokens, V vision tokens, D head dimension.
"""

from dataclasses import dataclass

import torch
from transformers import DynamicCache

from vfl.errors import InputError
from vfl.models.encode import Encoded, Span
from vfl.models.vlm import VLM


@dataclass(frozen=True, eq=False)
class ImageCache:
    """Keys (after RoPE) and values of a prefilled prompt, up to its last vision token where the prefix is shared.

    Attributes:
        keys: per layer (1, H, S, D).
        values: per layer (1, H, S, D).
        ids: (1, S) tokens that were prefilled.
        positions: (..., 1, S) their position ids, to which the keys are turned.
        spans: where the vision tokens stand.
        image_key: which pixels they come from.
    """

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    ids: torch.Tensor
    positions: torch.Tensor
    spans: tuple[Span, ...]
    image_key: str

    def __repr__(self) -> str:
        return f"ImageCache({len(self.keys)} layers, {self.length} tokens, {self.keys[0].dtype})"

    @property
    def length(self) -> int:
        """Prefilled tokens S."""
        return int(self.ids.shape[1])

    def slots(self) -> torch.Tensor:
        """(V,) positions of the vision tokens."""
        return slots_of(self.spans, self.ids.device)

    def check_swappable(self, encoded: Encoded) -> None:
        """Raise InputError unless this cache's vision tokens can stand in for the prompt's own."""
        if self.spans != encoded.spans:
            theirs, ours = ([(s.start, s.end) for s in spans] for spans in (self.spans, encoded.spans))
            raise InputError(
                f"The source's vision tokens stand at {theirs}, the target's at {ours}; swapping needs the same number "
                "at the same positions. Give both images the same size in pixels (and the same question)."
            )
        # As many tokens on another grid (4 x 3 and 3 x 4) have other rows and columns, where M-RoPE counts these.
        slots = self.slots().cpu()
        if not torch.equal(self.positions.cpu()[..., slots], encoded.positions.cpu()[..., slots]):
            raise InputError(
                f"The source's {len(slots)} vision tokens stand on another grid of rows and columns than the target's "
                f"(the target is {_sizes(encoded)} pixels); swapping needs images of the same proportions. Give both "
                "images the same size in pixels."
            )


def _sizes(encoded: Encoded) -> str:
    return ", ".join(f"{width} x {height}" for width, height in encoded.image_sizes)


def slots_of(spans: tuple[Span, ...], device: torch.device) -> torch.Tensor:
    """(V,) positions of all spans."""
    return torch.cat([torch.arange(span.start, span.end, device=device) for span in spans])


def can_share(vlm: VLM, encoded: Encoded) -> bool:
    """Whether the image cache of this prompt is the same for every later text: one span in a causal model."""
    return vlm.shares_prefix and len(encoded.spans) == 1


@torch.no_grad()
def prefill(vlm: VLM, encoded: Encoded) -> ImageCache:
    """Run the model once over the prompt up to its last vision token and keep every layer's keys and values.

    Where the prefix can't be shared (several spans, prefix-LM) the whole prompt is run.
    """
    end = encoded.spans[-1].end if can_share(vlm, encoded) else encoded.length
    return image_cache_of(encoded, run_body(vlm, encoded, end), 0, end)


def image_cache_of(encoded: Encoded, cache: DynamicCache, row: int, end: int) -> ImageCache:
    """The image cache of a prompt from one row of a pass over its first `end` tokens."""
    return ImageCache(
        keys=tuple(layer.keys[row : row + 1] for layer in cache.layers),
        values=tuple(layer.values[row : row + 1] for layer in cache.layers),
        ids=encoded.input_ids[:, :end],
        positions=encoded.positions[..., :end],
        spans=encoded.spans,
        image_key=encoded.image_key,
    )


def run_body(vlm: VLM, encoded: Encoded, end: int) -> DynamicCache:
    """The plain model, without its head, over the first `end` tokens of a prompt; its cache of all layers."""
    cache = DynamicCache()
    vlm.parts.body(
        **encoded.head(end), position_ids=encoded.positions[..., :end], past_key_values=cache, use_cache=True
    )
    return cache
