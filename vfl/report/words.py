"""Layers, rates and numbers in words, alike in tables, figures and pages."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vfl.io.layers import layer_list

if TYPE_CHECKING:  # a map draws itself with these words, so that they lie below it
    from vfl.functionmap import FunctionEntry

SHARE = "share"  # the unit of numbers that are read in per cent
NONE = "–"


def shown(value: float | None, unit: str) -> str:
    """A number as a person reads it: shares in per cent, never a negative zero."""
    if value is None:
        return NONE
    if unit == SHARE:
        return f"{_fixed(100 * value, 1)}\u00a0%"
    return f"{value + 0.0:g}" if value == int(value) and abs(value) < 1e6 else f"{value:.3g}"


def signed(value: float | None, digits: int = 2) -> str:
    """A difference with its sign; what rounds to nothing is +0.0, not -0.0."""
    if value is None:
        return NONE
    text = _fixed(value, digits)
    return text if text.startswith("-") else f"+{text}"


def fixed(value: float | None, digits: int = 2) -> str:
    """A number with so many digits behind the point."""
    return NONE if value is None else _fixed(value, digits)


def spoken(name: str) -> str:
    """A name without underscores, its parts set off."""
    return name.replace("_", " ").replace("/", ": ")


def _fixed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}"


def shortened(text: str, most: int) -> str:
    """The text, cut to `most` characters with an ellipsis."""
    return text if len(text) <= most else text[: most - 1] + "…"


def percent(rate: float) -> str:
    """0.874 -> "87 %", with a space that does not break."""
    return f"{100 * rate:.0f}\u00a0%"


def interval(ends: tuple[float, float]) -> str:
    """(0.741, 0.912) -> "74–91 %"."""
    return f"{100 * ends[0]:.0f}–{percent(ends[1])}"


def headline(entry: "FunctionEntry") -> tuple[float, tuple[float, float], str] | None:
    """The rate that stands for a function, its 95 % interval, and what was swapped; None where nothing was found.

    The peak layer's own rate, or the best block's where layers do more together.
    """
    if entry.peak is None:
        return None
    if entry.blocks and entry.chosen_by in ("window", "range"):
        best = max(entry.blocks, key=lambda block: block.changed)
        if best.changed > entry.rate(entry.peak):
            return best.changed, best.ci, f"layers {layer_list(best.layers)} together"
    return entry.rate(entry.peak), entry.interval(entry.peak), f"layer {entry.peak}"


def distinct_labels(model_ids: Sequence[str], paths: Sequence[Path]) -> tuple[str, ...]:
    """Models' names without the hub's owner; where two share one, the folders of their files tell them apart."""
    names = [model_id.rstrip("/").rsplit("/", 1)[-1] for model_id in model_ids]
    folders = [path.resolve().name if path.is_dir() else path.resolve().parent.name for path in paths]
    labels = [
        f"{name} ({folder})" if names.count(name) > 1 else name for name, folder in zip(names, folders, strict=True)
    ]
    # The same folder name twice: number them, a row must have one name.
    return tuple(f"{label} #{n + 1}" if labels.count(label) > 1 else label for n, label in enumerate(labels))
