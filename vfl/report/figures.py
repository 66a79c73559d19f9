"""curves.png and compare.png, fit for a paper: 300 dpi, one column and a half wide, no decoration."""

from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vfl.functionmap import FunctionMap
from vfl.locate.choose import runs
from vfl.report.charts import inks
from vfl.report.words import layer_list

STYLE = {
    "font.size": 8,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.edgecolor": "#444444",
    "text.parse_math": False,  # names come from data: a $ in them is no formula
}
WIDTH = 5.5  # inches


def curves_figure(fmap: FunctionMap, planted: Mapping[str, Sequence[int]] | None = None) -> Figure:
    """All functions over depth: changed rate with its interval, the control below it, chosen layers marked.

    One row a function, shallow ones on top, so that lines never hide each other however many there are.
    """
    order = fmap.order()
    names = order + [name for name in fmap.functions if name not in order]
    ink = inks(names)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.5 + 0.82 * len(names)), layout="constrained")
        FigureCanvasAgg(figure)
        rows = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
        for axes, name in zip(rows, names, strict=True):
            _draw(axes, fmap, name, ink[name].colour, sorted((planted or {}).get(name, ())))
        rows[-1].set_xlabel("decoder layer")
        figure.supylabel("answers changed (%)", fontsize=8)
    return figure


def _draw(axes: Axes, fmap: FunctionMap, name: str, colour: str, truth: Sequence[int]) -> None:
    entry, depth = fmap.functions[name], fmap.model.num_layers
    layers = range(depth)
    for run in runs(entry.layers):
        axes.axvspan(run[0] - 0.5, run[-1] + 0.5, color=colour, alpha=0.12, lw=0)
    for run in runs(truth):
        axes.plot([run[0] - 0.5, run[-1] + 0.5], [-7, -7], color="black", lw=2.2, solid_capstyle="butt", clip_on=False)
    axes.fill_between(
        layers, [100 * v for v in entry.ci_low], [100 * v for v in entry.ci_high], color=colour, alpha=0.2, lw=0
    )
    if entry.control:
        axes.plot(layers, [100 * v for v in entry.control], color="#777777", lw=0.9, ls=(0, (4, 2)))
    axes.plot(layers, [100 * v for v in entry.changed], color=colour, lw=1.4)
    axes.plot(
        entry.layers, [100 * entry.changed[k] for k in entry.layers], "o", color=colour, ms=3.6, mec="white", mew=0.7
    )
    for block in entry.blocks:
        ends = [block.layers[0] - 0.5, block.layers[-1] + 0.5]
        axes.plot(ends, [100 * block.changed] * 2, color="#222222", lw=1.8, solid_capstyle="butt")
    axes.set_ylim(-7, 107)
    axes.set_yticks([0, 50, 100])
    axes.set_xlim(-0.6, depth - 0.4)
    plural = "s" if len(entry.layers) > 1 else ""
    found = f"layer{plural} {layer_list(entry.layers)}" if entry.layers else "no layers found"
    axes.set_title(f"{name}: {found}", loc="left", fontsize=8, pad=2)
