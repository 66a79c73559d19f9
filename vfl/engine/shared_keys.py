"""Two stand-ins for the model's cache: one for a plain forward, one for the ablated rows beside it.

Shapes: B conversations, R with a window, C copies, H key-value heads, T tokens, m tokens of a row, P positions before
the windows, V vision tokens, D head dimension.
"""

from typing import Any

import torch
from transformers import DynamicCache

from vfl.engine.rows import KeysValues


class PassingCache(DynamicCache):
    """A cache for one forward over whole conversations; it holds one layer's keys and values at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._pair: KeysValues | None = None

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> KeysValues:
        """(B, H, T, D) new keys and values, which are all there are."""
        self._pair = (keys, values)
        return self._pair

    def take(self) -> KeysValues:
        """The keys and values of the layer that has just run."""
        pair, self._pair = self._pair, None
        assert pair is not None, "every layer uses the cache once"
        return pair


class SharedKeys:
    """Stands in for the cache while the windows of R conversations run a layer.

    A conversation's windows stand side by side in one row (C = 1), so that all of them read one copy of the keys before
    them, or in C rows of their own.

    Args:
        before: keys and values (R, H, P, D) of the plain forward.
        replaced: (R, H, V, D) other keys and values of the vision tokens, appended; the mask says who reads them.
        copies: rows C of each conversation.
    """

    def __init__(self, before: KeysValues, replaced: KeysValues | None, copies: int) -> None:
        self.before, self.replaced, self.copies = before, replaced, copies

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> KeysValues:
        """(R * C, H, m, D) new keys and values -> (R * C, H, P + m [+ V], D) all that the windows may read."""
        return self._assemble(keys, 0), self._assemble(values, 1)

    def _assemble(self, new: torch.Tensor, which: int) -> torch.Tensor:
        parts = [self._spread(self.before[which]), new]
        if self.replaced is not None:
            parts.append(self._spread(self.replaced[which].to(new.device)))
        return torch.cat(parts, dim=2)

    def _spread(self, part: torch.Tensor) -> torch.Tensor:
        return part if self.copies == 1 else part.repeat_interleave(self.copies, dim=0)
