"""How long the rows are, in tokens of text and of images, against the limit that training was given."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict
from rich.text import Text

BARS = "▏▎▍▌▋▊▉█"
BINS = 10
LONGEST = 5  # rows that are named


class Quantiles(BaseModel):
    """Of a number of tokens a row."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    least: int
    median: int
    p90: int
    p99: int
    most: int
    mean: float

    @classmethod
    def of(cls, values: Sequence[int]) -> Self:
        # "higher": a length that a row has, never one between two rows.
        median, p90, p99 = (int(v) for v in np.quantile(values, (0.5, 0.9, 0.99), method="higher"))
        return cls(
            least=min(values), median=median, p90=p90, p99=p99, most=max(values), mean=round(float(np.mean(values)), 2)
        )


class Bin(BaseModel):
    """Rows with `first` to `last` tokens; `image_share` is the share of image tokens among theirs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: int
    last: int
    rows: int
    image_share: float


class LengthHistogram(BaseModel):
    """Lengths of all rows; `limit` is None where rows may have any length."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int
    limit: int | None
    over: int  # rows longer than the limit
    total: Quantiles
    text: Quantiles
    image: Quantiles
    bins: tuple[Bin, ...]
    longest: tuple[tuple[str, int], ...]  # names and lengths, longest first


def length_histogram(
    text: Sequence[int], image: Sequence[int], limit: int | None = None, where: Sequence[str] | None = None
) -> LengthHistogram:
    """Lengths of rows, given as tokens of text and of images per row; at least one row.

    Args:
        text: tokens of each row that are not image placeholders.
        image: image placeholders of each row, 0 for a row of text alone.
        limit: most tokens that a row may have.
        where: what a person calls each row.
    """
    assert len(text) == len(image) > 0, (len(text), len(image))
    texts, images = np.asarray(text, dtype=np.int64), np.asarray(image, dtype=np.int64)
    total = texts + images
    order = np.argsort(-total, kind="stable")[:LONGEST]
    return LengthHistogram(
        rows=len(total),
        limit=limit,
        over=0 if limit is None else int((total > limit).sum()),
        total=Quantiles.of(total.tolist()),
        text=Quantiles.of(texts.tolist()),
        image=Quantiles.of(images.tolist()),
        bins=_bins(total, images, limit),
        longest=tuple((where[n] if where is not None else f"row {n}", int(total[n])) for n in order.tolist()),
    )


def bars(histogram: LengthHistogram, width: int = 40) -> list[tuple[str, Text, str]]:
    """(tokens, bar, rows) for each bin; of a bar the image tokens' share is blue, and red is over the limit."""
    most = max(interval.rows for interval in histogram.bins)
    rows = []
    for interval in histogram.bins:
        over = histogram.limit is not None and interval.first > histogram.limit
        bar = _bar(interval.rows / most * width)
        cut = round(len(bar) * interval.image_share)
        drawn = Text(bar[:cut], style="red" if over else "blue") + Text(bar[cut:], style="red" if over else "cyan")
        label = str(interval.first) if interval.first == interval.last else f"{interval.first}–{interval.last}"
        rows.append((label, drawn, f"{interval.rows:,}"))
    return rows


def _bar(length: float) -> str:
    """A bar of `length` cells, to an eighth; what is not nothing is seen."""
    eighths = max(round(length * 8), 1 if length > 0 else 0)
    return BARS[-1] * (eighths // 8) + (BARS[eighths % 8 - 1] if eighths % 8 else "")


def _bins(total: np.ndarray, images: np.ndarray, limit: int | None) -> tuple[Bin, ...]:
    """About BINS bins of a round width between the shortest and the longest row, cut at the limit."""
    low, high = int(total.min()), int(total.max())
    step = _round_step(max(high - low, 1) / BINS)
    # Bins begin behind a round number (201–400), so that a round limit ends one.
    edges = list(range(max(low - 1, 0) // step * step + 1, high + step + 2, step))
    edges[0] = min(edges[0], low)
    if limit is not None and low <= limit < high:
        edges = sorted({*edges, limit + 1})  # no bin holds rows of both sides
    counts, _ = np.histogram(total, edges)
    tokens, _ = np.histogram(total, edges, weights=total)
    pixels, _ = np.histogram(total, edges, weights=images)
    bins = [
        Bin(first=a, last=b - 1, rows=int(n), image_share=round(float(p / t), 4) if t else 0.0)
        for a, b, n, t, p in zip(edges[:-1], edges[1:], counts, tokens, pixels, strict=True)
    ]
    while bins and not bins[-1].rows:
        bins.pop()
    return tuple(bins)


def _round_step(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50, ... that is at least `least`."""
    power = 1
    while True:
        for digit in (1, 2, 5):
            if digit * power >= least:
                return digit * power
        power *= 10
