"""A figure fit for a paper: the curves of one function map."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from vfl.io.layers import layer_list, runs
from vfl.report.charts import DASH, PALE, inks
from vfl.report.paper_figure import LONGEST_NAME, STYLE, WIDTH, PaperFigure
from vfl.report.words import shortened

if TYPE_CHECKING:  # a map draws itself with this, so that this lies below it
    from vfl.functionmap import FunctionMap

CONTROL: dict[str, Any] = {"color": "#777777", "lw": 0.9, "ls": (0, (4, 2))}
UNTRAINED: dict[str, Any] = {"color": PALE, "lw": 1.2}
JOINT: dict[str, Any] = {"color": "#222222", "lw": 1.8, "solid_capstyle": "butt"}
PLANTED: dict[str, Any] = {"color": "black", "lw": 2.6, "solid_capstyle": "butt", "zorder": 4}


def curves_figure(fmap: "FunctionMap", planted: Mapping[str, Sequence[int]] | None = None) -> PaperFigure:
    """All functions over depth: changed rate with its interval, the control below it, chosen layers marked.

    One row a function, shallow ones on top, so that lines never hide each other however many there are.
    """
    order = fmap.order()
    names = order + [name for name in fmap.functions if name not in order]
    ink = inks(names)
    with rc_context(STYLE):
        figure = PaperFigure(figsize=(WIDTH, 0.7 + 0.82 * len(names)), layout="constrained")
        rows = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
        for axes, name in zip(rows, names, strict=True):
            _draw(axes, fmap, name, ink[name].colour, sorted((planted or {}).get(name, ())))
        rows[-1].set_xlabel("decoder layer")
        figure.supylabel("answers changed (%)", fontsize=8)
        marks = _legend(fmap, planted or {})
        figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False, fontsize=7)
    return figure


def _legend(fmap: "FunctionMap", planted: Mapping[str, Sequence[int]]) -> list[Line2D]:
    """What the lines are; only those that are drawn."""
    entries = fmap.functions.values()
    marks = [Line2D([], [], color="#444444", lw=1.4, marker="o", ms=3.6, mec="white", label="one layer (dots: chosen)")]
    if any(entry.control for entry in entries):
        marks.append(Line2D([], [], **CONTROL, label="control swap"))
    if any(entry.random_weights for entry in entries):
        marks.append(Line2D([], [], **UNTRAINED, label="random weights"))
    if any(entry.blocks for entry in entries):
        marks.append(Line2D([], [], **JOINT, label="block together"))
    if any(planted.values()):
        marks.append(Line2D([], [], **PLANTED, label="planted (on the axis)"))
    return marks


def _draw(axes: Axes, fmap: "FunctionMap", name: str, colour: str, truth: Sequence[int]) -> None:
    entry, depth = fmap.functions[name], fmap.model.num_layers
    layers = range(depth)
    for run in runs(entry.layers):
        axes.axvspan(run[0] - 0.5, run[-1] + 0.5, color=colour, alpha=0.12, lw=0)
    for run in runs(truth):
        axes.plot([run[0] - 0.5, run[-1] + 0.5], [-7, -7], clip_on=False, **PLANTED)
    axes.fill_between(layers, _percent(entry.ci_low), _percent(entry.ci_high), color=colour, alpha=0.2, lw=0)
    if entry.control:
        axes.plot(layers, _percent(entry.control), **CONTROL)
    if entry.random_weights:
        axes.plot(layers, _percent(entry.random_weights.changed), **UNTRAINED)
    axes.plot(layers, _percent(entry.changed), color=colour, lw=1.4)
    for k in _alone(entry.changed):  # lines and areas don't show a point between gaps
        axes.plot([k - DASH, k + DASH], [100 * entry.rate(k)] * 2, color=colour, lw=1.4)
        low, high = (100 * end for end in entry.interval(k))
        axes.fill_between([k - DASH, k + DASH], low, high, color=colour, alpha=0.2, lw=0)
    axes.plot(
        entry.layers, [100 * entry.rate(k) for k in entry.layers], "o", color=colour, ms=3.6, mec="white", mew=0.7
    )
    for block in entry.blocks:
        ends = [block.layers[0] - 0.5, block.layers[-1] + 0.5]
        axes.plot(ends, [100 * block.changed] * 2, **JOINT)
    axes.set_ylim(-7, 107)
    axes.set_yticks([0, 50, 100])
    axes.set_xlim(-0.6, depth - 0.4)
    plural = "s" if len(entry.layers) > 1 else ""
    layers_found = f"layer{plural} {layer_list(entry.layers)}" if entry.layers else "no layers found"
    axes.set_title(f"{shortened(name, LONGEST_NAME)}: {layers_found}", loc="left", fontsize=8, pad=2)


def _percent(curve: Sequence[float | None]) -> list[float]:
    """A curve in per cent, with gaps for layers that were not swept."""
    return [math.nan if value is None else 100 * value for value in curve]


def _alone(curve: Sequence[float | None]) -> list[int]:
    """Layers that have a value and no neighbour with one."""
    swept = [k for k, value in enumerate(curve) if value is not None]
    return [run[0] for run in runs(swept) if len(run) == 1]
