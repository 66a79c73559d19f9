"""Which stretch of each conversation an ablation can change: what follows its first image, up to its last answer.

Shapes: B conversations, R of them with an image whose ablation can change an answer, T tokens, n tokens of the longest
window.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vfl.models.encode import Span
from vfl.models.vlm import VLM

# What Gemma 3's processor writes around the crops of one image (pan and scan): part of the span, as in `VLM.encode`.
_AROUND_CROPS = ("Here is the original image", "and here are some crops to help you see better")


@dataclass(frozen=True)
class Windows:
    """The windows of R conversations.

    Attributes:
        rows: (R,) which conversations.
        starts: (R,) their first token that an ablation can change.
        places: (R, n) the windows' positions; past a window's end its last one is repeated.
        valid: (R, n) whether the window goes that far.
        slots: (R, T) whether a position holds a vision token.
        shared: P, how many first positions hold all that stands before the windows.
    """

    rows: torch.Tensor
    starts: torch.Tensor
    places: torch.Tensor
    valid: torch.Tensor
    slots: torch.Tensor
    shared: int

    def slot_places(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(R, V) positions of the vision tokens, and whether there are that many."""
        counts = self.slots.sum(1)
        steps = torch.arange(int(counts.max()), device=counts.device)
        order = self.slots.int().argsort(dim=1, descending=True, stable=True)
        return order[:, : len(steps)], steps < counts[:, None]


def at(value: torch.Tensor, rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(..., B or 1, T, d), rows (R,) and their places (R, n) -> (..., R, n, d)."""
    rows, places = rows.to(value.device), places.to(value.device)
    if value.shape[-3] == 1:
        rows = torch.zeros_like(rows)
    return value[..., rows[:, None], places, :]


def find_windows(vlm: VLM, ids: torch.Tensor, answers: torch.Tensor, lengths: torch.Tensor) -> Windows | None:
    """The windows of a batch, or None where no answer follows an image.

    Where a model's vision states depend on later text, windows are whole conversations.

    Args:
        vlm: the model.
        ids: (B, T) tokens.
        answers: (B, T) which of them are answers.
        lengths: (B,) tokens of each conversation.
    """
    spans = find_all_spans(vlm, ids)
    rows, bounds, slots = [], [], []
    for row, (spans_of_row, answer) in enumerate(zip(spans, answers.cpu(), strict=True)):
        if not spans_of_row or not answer.any():
            continue
        start, end = spans_of_row[0].end, int(answer.nonzero()[-1])  # the last answer token predicts nothing
        if not vlm.shares_prefix:
            start, end = 0, int(lengths[row])
        if start >= end:
            continue
        rows.append(row)
        bounds.append((start, end))
        taken = torch.zeros(ids.shape[1], dtype=torch.bool)
        for span in spans_of_row:
            taken[span.start : span.end] = True
        slots.append(taken)
    if not rows:
        return None
    starts, ends = torch.tensor(bounds).T
    steps = torch.arange(int((ends - starts).max()))
    return Windows(
        rows=torch.tensor(rows, device=vlm.device),
        starts=starts.to(vlm.device),
        places=torch.minimum(starts[:, None] + steps, ends[:, None] - 1).to(vlm.device),
        valid=(steps < (ends - starts)[:, None]).to(vlm.device),
        slots=torch.stack(slots).to(vlm.device),
        shared=int(starts.max()),
    )


def find_all_spans(vlm: VLM, ids: torch.Tensor) -> list[tuple[Span, ...]]:
    """The vision spans of every row of (B, T) tokens: the same as `VLM.encode` finds, without running the processor.

    Two image tokens belong to one span when nothing but markers and white space stands between them.
    """
    added = set(vlm.tokenizer.added_tokens_decoder)
    return [_spans_of(vlm, row, added) for row in ids.tolist()]


def _spans_of(vlm: VLM, ids: Sequence[int], added: set[int]) -> tuple[Span, ...]:
    spans: list[Span] = []
    for place, token in enumerate(ids):
        if token != vlm.parts.image_token_id:
            continue
        if spans and _only_markers(vlm, ids[spans[-1].end : place], added):
            spans[-1] = Span(spans[-1].start, place + 1)
        else:
            spans.append(Span(place, place + 1))
    return tuple(spans)


def _only_markers(vlm: VLM, ids: Sequence[int], added: set[int]) -> bool:
    words = [token for token in ids if token not in added]
    return not words or vlm.tokenizer.decode(words).strip() in ("", *_AROUND_CROPS)
