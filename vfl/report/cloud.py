"""Many points of a few groups, without intervals, for a page's inline SVG: one a head, in the colour of its depth.

`charts.html.jinja` draws them in a box of 100 x 100, with all text as HTML beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vfl.report.charts import PLAIN, Ink, Tick, inks, y_of
from vfl.report.lines import Level
from vfl.report.scales import place, ticks_of, with_room
from vfl.report.sheet import Sheet


@dataclass(frozen=True)
class Cloud:
    """Points (x, y, what it says) by group; `axis` names what stands to the right, `unit` what stands upwards."""

    title: str
    axis: str
    unit: str
    groups: dict[str, list[tuple[float, float, str]]]


@dataclass(frozen=True)
class Swarm:
    name: str
    ink: Ink
    dots: list[tuple[float, float, str]]  # places in per cent of the box


@dataclass(frozen=True)
class CloudChart:
    title: str
    axis: str
    unit: str
    lines: list[Swarm]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    sheet: Sheet
    levels: list[Level] = field(default_factory=list)  # none: the legend of lines is used for it


def cloud_chart(cloud: Cloud, ink: Mapping[str, Ink] | None = None) -> CloudChart | None:
    """Points ready to be drawn, each group in its ink; None without any."""
    points = [point for group in cloud.groups.values() for point in group]
    if not points:
        return None
    x_ends, y_ends = _ends([x for x, _, _ in points]), _ends([y for _, y, _ in points])
    colours = ink or inks(list(cloud.groups))
    swarms = [
        Swarm(name, colours.get(name, PLAIN), [(place(x, x_ends), y_of(y, *y_ends), says) for x, y, says in group])
        for name, group in cloud.groups.items()
    ]
    return CloudChart(
        title=cloud.title,
        axis=cloud.axis,
        unit=cloud.unit,
        lines=swarms,
        x_ticks=[Tick(place(x, x_ends), f"{x:g}") for x in ticks_of(*x_ends, 5)],
        y_ticks=[Tick(y_of(y, *y_ends), f"{y:g}") for y in ticks_of(*y_ends, 4)],
        sheet=Sheet(
            f"{cloud.title} {cloud.unit} {cloud.axis}",
            ["group", "point", cloud.axis, cloud.unit],
            [[name, says.partition(":")[0], x, y] for name, group in cloud.groups.items() for x, y, says in group],
        ),
    )


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return with_room(min(values), max(values))
