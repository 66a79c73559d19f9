"""report.html and figures of a measurement, each whole or not at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vfl.io.atomic import replacing
from vfl.measure.metrics_file import Metrics
from vfl.measure.report.figures import figure
from vfl.measure.report.guide import guide_of
from vfl.measure.report.page import render
from vfl.measure.report.panels import axis_of_dots, drawn

FIGURES = "figures"
REPORT = "report.html"


def write_report(
    out: Path, metrics: Metrics, pictures: Sequence[dict[str, Any]] = (), notes: Sequence[str] = ()
) -> Path:
    """Write report.html and figures/NAME.png into a folder and return the page's path.

    Args:
        out: the folder.
        metrics: what was measured.
        pictures: of the interactive lens (`lens_view`).
        notes: sentences about the model and the data.
    """
    for name, result in metrics.metrics.items():
        guide = guide_of(name)
        content = drawn(result, guide, metrics.data.functions)
        picture = figure(content, guide.title, axis_of_dots(content.dots, guide))
        if picture is None:
            continue
        with replacing(out / FIGURES / f"{name}.png") as temporary:
            picture.savefig(temporary, format="png", dpi=200)
    with replacing(out / REPORT) as temporary:
        temporary.write_text(render(metrics, pictures, notes), encoding="utf-8")
    return out / REPORT
