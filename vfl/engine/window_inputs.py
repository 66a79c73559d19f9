"""What a layer is given for windows, cut from what it was given for the whole batch: masks and positions.

Shapes: B conversations, R with a window, J ablations, C copies, n tokens of a window, P positions before the windows,
V vision tokens, T tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from vfl.engine.layer_inputs import OWN_ARGUMENTS, cut_argument
from vfl.engine.masks import plain_mask
from vfl.engine.windows import Windows, at


class WindowMasks:
    """Masks for windows; the last one is kept, since layers that follow one another mostly need the same.

    Args:
        windows: the windows.
        hides: ablated readers see no vision tokens; else they see others, which stand behind all other keys.
    """

    def __init__(self, windows: Windows, hides: bool) -> None:
        self.windows, self.hides = windows, hides
        self.is_slot = windows.slots.gather(1, windows.places)
        self._seen: dict[int, tuple[torch.Tensor | None, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]] = {}
        self._last: tuple[Any, torch.Tensor] | None = None

    def __call__(
        self, whole_mask: torch.Tensor | None, hidden: torch.Tensor, ablated: Sequence[bool], copies: int
    ) -> torch.Tensor:
        """Who sees which key at a layer.

        Args:
            whole_mask: the layer's mask for the whole batch: None, boolean or additive.
            hidden: (B, T, d) the layer's output.
            ablated: for each of J ablations whether it covers the layer.
            copies: 1 for (R, 1, J * n, P + J * n [+ V]), J for (R * J, 1, n, P + n [+ V]).
        """
        key = (id(whole_mask), tuple(ablated), copies, hidden.device)
        if self._last is None or self._last[0] != key:
            self._last = (key, self._make(whole_mask, hidden, ablated, copies))
        return self._last[1]

    def _make(
        self, whole_mask: torch.Tensor | None, hidden: torch.Tensor, ablated: Sequence[bool], copies: int
    ) -> torch.Tensor:
        windows, joined = self.windows, len(ablated)
        before, within, others = self._plain(whole_mask, hidden)
        reads = torch.tensor(ablated, device=before.device)[:, None, None] & ~self.is_slot[:, None, :, None]
        before = before[:, None] & ~(reads & windows.slots[:, None, None, : windows.shared])  # (R, J, n, P)
        within = within[:, None] & ~(reads & self.is_slot[:, None, None])  # (R, J, n, n)
        if copies == 1 and joined > 1:  # side by side, blind to one another
            rows, _, length, _ = within.shape
            apart = within.new_zeros(rows, joined, length, joined, length)
            index = torch.arange(joined, device=within.device)
            apart[:, index, :, index] = within.transpose(0, 1)
            within = apart.flatten(3)
        parts = [before, within]
        if not self.hides and any(ablated):
            parts.append(others[:, None] & reads)
        mask = torch.cat(parts, dim=-1)
        mask = (mask.flatten(1, 2) if copies == 1 else mask.flatten(0, 1))[:, None]
        return mask.to(hidden.device)

    def _plain(
        self, whole_mask: torch.Tensor | None, hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(R, n, P), (R, n, n) and (R, n, V): what windows see before them, in them, and of the vision tokens."""
        if id(whole_mask) not in self._seen:
            windows, length = self.windows, hidden.shape[1]
            whole = plain_mask(whole_mask, length, length, hidden.device)[:, 0].to(windows.places.device)
            rows = (windows.rows if len(whole) > 1 else torch.zeros_like(windows.rows))[:, None, None]
            queries = windows.places[:, :, None]
            early = torch.arange(windows.shared, device=queries.device)
            slots, there = windows.slot_places()
            masks = (
                whole[rows, queries, early] & (early < windows.starts[:, None])[:, None],
                whole[rows, queries, windows.places[:, None]] & windows.valid[:, None],
                whole[rows, queries, slots[:, None]] & there[:, None],
            )
            self._seen[id(whole_mask)] = (whole_mask, masks)  # the mask too, or another could get its id
        return self._seen[id(whole_mask)][1]


class WindowArguments:
    """A layer's other arguments for windows; what layers share is cut once."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows
        self._cut: dict[tuple[int, int, int], tuple[Any, Any]] = {}

    def __call__(self, arguments: Mapping[str, Any], length: int, joined: int, copies: int) -> dict[str, Any]:
        """Arguments for J windows of each conversation, from those for B conversations of T = `length` tokens.

        Raises:
            NotImplementedError: when a layer takes a per-token argument that is not known here.
        """
        rows, places = self.windows.rows, self.windows.places

        def cut(part: torch.Tensor) -> torch.Tensor:
            return _spread(at(part, rows, places), joined, copies)

        of_windows = {}
        for name, value in arguments.items():
            if name in OWN_ARGUMENTS:
                continue
            key = (id(value), joined, copies)
            if key not in self._cut:  # the value is kept too, or another could get its id
                self._cut[key] = (value, cut_argument(name, value, length, cut))
            of_windows[name] = self._cut[key][1]
        return of_windows


def _spread(part: torch.Tensor, joined: int, copies: int) -> torch.Tensor:
    """(..., R, n, D) -> (..., R, J * n, D), or (..., R * J, n, D) with J copies."""
    spread = part.unsqueeze(-3).expand(*part.shape[:-2], joined, *part.shape[-2:])
    return spread.flatten(-3, -2) if copies == 1 else spread.flatten(-4, -3)
