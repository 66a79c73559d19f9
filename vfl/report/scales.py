"""Places and ticks on an axis of any numbers, in per cent of a chart's box (charts.py has the layers' cells)."""

import math
from typing import TypeGuard

Number = float | None


def place(value: float, ends: tuple[float, float]) -> float:
    """Where a value stands from left to right."""
    return round(100 * (value - ends[0]) / (ends[1] - ends[0]), 3)


def ticks_of(low: float, high: float, most: int) -> list[float]:
    """Round numbers between low and high, at most `most` of them and at least one, if there is any."""
    if high <= low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power * digit for digit in (1, 2, 5, 10, 20, 50)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if 1 <= last - first + 1 <= most:
            return [round(n * step, 12) for n in range(first, last + 1)]  # 3 * 0.1 is 0.30000000000000004
    return [low, high]


def whole_ticks(count: int) -> list[int]:
    """At most eight round places of 0 .. count - 1."""
    return [int(tick) for tick in ticks_of(0, count - 1, 8) if tick == int(tick)] if count > 1 else [0]


def with_room(low: float, high: float, least: float = 0.0) -> tuple[float, float]:
    """A little room above and below, and some around values that are closer than `least`, or a single one."""
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2
    span = high - low or abs(high) or 1.0
    return low - 0.06 * span, high + 0.06 * span


def finite(value: Number) -> TypeGuard[float]:
    """Whether there is a number."""
    return value is not None and math.isfinite(value)
