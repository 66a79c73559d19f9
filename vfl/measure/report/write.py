"""report.html and figures of a measurement, each whole or not at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vfl.io.atomic import replacing
from vfl.measure.metric_figure import metric_figure
from vfl.measure.metrics_file import Metrics
from vfl.measure.report.page import render

FIGURES = "figures"
REPORT = "report.html"


def write_report(
    out: Path,
    metrics: Metrics,
    pictures: Sequence[dict[str, Any]] = (),
    notes: Sequence[str] = (),
    beside: Sequence[str] = (),
) -> Path:
    """Write report.html and figures/NAME.png into a folder and return the page's path.

    Args:
        out: the folder.
        metrics: what was measured.
        pictures: of the interactive lens (`lens_view`).
        notes: sentences about the model and the data.
        beside: folders next to `out` with the run's other reports.
    """
    for name, result in metrics.metrics.items():
        picture = metric_figure(name, result, metrics.data.functions)
        if picture is None:
            continue
        with replacing(out / FIGURES / f"{name}.png") as temporary:
            picture.write_png(temporary, dpi=200)
    with replacing(out / REPORT) as temporary:
        temporary.write_text(render(metrics, pictures, notes, beside), encoding="utf-8")
    return out / REPORT
