"""The charts of the pages as one figure for papers and notebooks."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vfl.report.charts import Ink, inks
from vfl.report.cloud import Cloud
from vfl.report.dots import Dot
from vfl.report.heat import Heat
from vfl.report.lines import LEAST_SPAN, Panel, lines_of
from vfl.report.paper_figure import LONGEST_NAME, STYLE, WIDTH, PaperFigure
from vfl.report.scales import Number, finite
from vfl.report.words import SHARE, shortened

LEVEL_DASHES = {"no image": (0, (6, 3)), "chance": (0, (1, 2))}
PANEL_HEIGHT = 1.75
MANY = 6  # panels: more stand three in a row
APART = 0.22  # of a row, between the dots of two groups

_WIDE = 26  # letters of a title that a panel of three has room for


def picture(
    title: str,
    *,
    panels: Sequence[Panel] = (),
    heats: Sequence[Heat] = (),
    clouds: Sequence[Cloud] = (),
    dots: Sequence[Dot] = (),
    axis: str = "",
) -> PaperFigure | None:
    """All charts two or three in a row, head tables last; None where there is nothing to draw.

    Args:
        title: above all.
        panels: of lines.
        heats: head tables.
        clouds: of points.
        dots: lone numbers, those of one name in one row.
        axis: what the axis of the lone numbers shows.
    """
    panels = [panel for panel in panels if any(finite(v) for line in panel.series for v in line.value)]
    heats = [heat for heat in heats if any(finite(v) for row in heat.rows for v in row)]
    count = len(panels) + len(heats) + len(clouds) + bool(dots)
    if not count:
        return None
    columns = 1 if count == 1 else 2 if count <= MANY else 3
    rows = math.ceil(count / columns)
    height = 0.7 + PANEL_HEIGHT * rows if not dots else 0.8 + 0.2 * len({dot.name for dot in dots})
    ink = inks(lines_of(panels))
    with rc_context(STYLE):
        drawn = PaperFigure(figsize=(WIDTH, height), layout="constrained")
        places = list(drawn.subplots(rows, columns, squeeze=False).flat)
        for axes in places[count:]:
            axes.remove()
        left = iter(places)
        for panel in panels:
            _panel(next(left), panel, ink)
        for cloud in clouds:
            _cloud(next(left), cloud)
        for heat in heats:
            _heat(drawn, next(left), heat)
        if dots:
            _dots(next(left), dots, axis)
        marks = {
            text: mark for axes in drawn.axes for mark, text in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        if marks:
            how: dict[str, Any] = {
                "loc": "outside lower center",
                "ncols": min(len(marks), 4),
                "frameon": False,
                "fontsize": 6.5,
            }
            drawn.legend(list(marks.values()), list(marks), **how)
        drawn.suptitle(shortened(title, 2 * LONGEST_NAME), fontsize=9, x=0.02, ha="left")
    return drawn


def _panel(axes: Axes, panel: Panel, ink: Mapping[str, Ink]) -> None:
    scale = 100 if panel.unit == SHARE else 1

    def scaled(values: Iterable[Number]) -> list[float]:
        return [scale * v if finite(v) else math.nan for v in values]

    for line in panel.series:
        colour = ink[line.name].colour
        style = "-" if not ink[line.name].dash else "--"
        low, high = (scaled(ends) for ends in zip(*line.intervals(), strict=True))
        axes.fill_between(line.at, low, high, color=colour, alpha=0.18, lw=0)
        axes.plot(line.at, scaled(line.value), style, color=colour, lw=1.3, marker="o", ms=2.2, label=line.name)
    for name, level in panel.levels.items():
        axes.axhline(scale * level, color="#5a6472", lw=0.9, ls=LEVEL_DASHES[name], label=name)
    if panel.unit == SHARE:
        axes.set_ylim(-4, 104)
    if panel.places:
        axes.set_xticks(panel.series[0].at, panel.places, rotation=30, ha="right", fontsize=6)
    elif all(x == int(x) for line in panel.series for x in line.at):
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("" if panel.places else panel.axis)
    axes.set_ylabel("%" if panel.unit == SHARE else panel.unit)
    _title(axes, panel.title)
    if panel.ends is not None and panel.unit != SHARE:
        room = 0.04 * (panel.ends[1] - panel.ends[0])
        axes.set_ylim(panel.ends[0] - room, panel.ends[1] + room)
    bottom, top = axes.get_ylim()
    if top - bottom < (least := LEAST_SPAN.get(panel.unit, 0.0)):
        axes.set_ylim((bottom + top - least) / 2, (bottom + top + least) / 2)


def _cloud(axes: Axes, cloud: Cloud) -> None:
    ink = inks(list(cloud.groups))
    for name, points in cloud.groups.items():
        xs, ys = [x for x, _, _ in points], [y for _, y, _ in points]
        axes.plot(xs, ys, "o", color=ink[name].colour, ms=2.2, alpha=0.7, label=name)
    axes.set_xlabel(cloud.axis)
    axes.set_ylabel(cloud.unit)
    _title(axes, cloud.title)


def _title(axes: Axes, title: str) -> None:
    """Above its panel, small enough not to run into the next one's."""
    text = shortened(title, LONGEST_NAME)
    axes.set_title(text, loc="left", fontsize=8 if len(text) <= _WIDE else 6, pad=2)


def _heat(drawn: Figure, axes: Axes, heat: Heat) -> None:
    values = [[v if finite(v) else math.nan for v in row] for row in heat.rows]
    shown = axes.imshow(values, aspect="auto", cmap="Blues", interpolation="nearest")
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    _title(axes, heat.title)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(8, integer=True))
    drawn.colorbar(shown, ax=axes, fraction=0.06, pad=0.02)


def _dots(axes: Axes, dots: Sequence[Dot], axis: str) -> None:
    """A row a name; the dots of several groups lie a little apart in it, the first on top."""
    rows = {name: row for row, name in enumerate(dict.fromkeys(dot.name for dot in dots))}
    labels = {dot.name: "" if dot.n is None else f" (n {dot.n})" for dot in dots}
    groups = inks(list(dict.fromkeys(dot.group for dot in dots)))
    apart = {group: APART * (place - (len(groups) - 1) / 2) for place, group in enumerate(groups)}
    for dot in dots:
        scale = 100 if dot.unit == SHARE else 1
        row, colour = rows[dot.name] + apart[dot.group], groups[dot.group].colour
        if finite(dot.low) and finite(dot.high):
            axes.plot([scale * dot.low, scale * dot.high], [row, row], color=colour, lw=1.2)
        axes.plot([scale * dot.value], [row], "o", color=colour, ms=3.5, label=dot.group or None)
    axes.set_yticks(range(len(rows)), [shortened(name, LONGEST_NAME) + labels[name] for name in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    if all(dot.unit == SHARE for dot in dots):
        axes.set_xlim(-2, 102)
    axes.set_xlabel(axis)
