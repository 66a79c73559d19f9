"""The figure of one metric."""

from collections.abc import Iterable, Mapping
from typing import Any

from vfl.measure.guide import guide_of
from vfl.measure.panels import axis_of_dots, drawn
from vfl.report.paper_figure import PaperFigure
from vfl.report.picture import picture


def metric_figure(name: str, result: Mapping[str, Any], functions: Iterable[str] = ()) -> PaperFigure | None:
    """All charts of a metric's result; None where there is nothing to draw."""
    guide = guide_of(name)
    content = drawn(result, guide, functions)
    return picture(
        guide.title,
        panels=content.panels,
        heats=content.heats,
        clouds=content.clouds,
        dots=content.dots,
        axis=axis_of_dots(content.dots, guide),
    )
