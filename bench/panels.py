"""A picture of growth: panels over the same quantities, a line a contender."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, Mapping[Any, Mapping[str, float]]]
"""Quantity -> point of it -> contender -> value."""


@dataclass(frozen=True)
class Row:
    """One row of panels, a panel a quantity."""

    label: str
    values: Values
    yscale: str = "log"


def growth_picture(rows: Sequence[Row], names: Sequence[str]) -> Any:
    """The figure; linear rows begin at 0."""
    from matplotlib.figure import Figure

    columns = len(rows[0].values)
    figure = Figure(figsize=(4.2 * columns, 3.2 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for number, row in enumerate(rows):
        for panel, (what, points) in zip(axes[number], row.values.items(), strict=True):
            for name in names:
                panel.plot(list(points), [of[name] for of in points.values()], marker="o", markersize=4, label=name)
            panel.set(xscale="log", yscale=row.yscale, xlabel=what, ylabel=row.label)
            if row.yscale == "linear":
                panel.set_ylim(0)
            panel.set_xticks(list(points), [str(point) for point in points])
            panel.minorticks_off()
            panel.grid(alpha=0.3)
            panel.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure
