"""Head tables of measurements as matrices: how far apart two are (EMD), and how they correlate (Pearson).

Legend: M measurements.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vfl.errors import InputError
from vfl.io.atomic import replacing
from vfl.measure.compare import Floats, HeadRow, MeasurementComparison
from vfl.report.paper_figure import LONGEST_NAME, STYLE, WIDTH
from vfl.report.words import shortened

MIDDLE = 0.179  # luminance on which black and white contrast alike
ROW_HEIGHT = 2.6  # inches, of a metric's two matrices


def matrices(labels: Sequence[str], rows: Sequence[HeadRow]) -> tuple[Floats, Floats]:
    """(M, M) EMD and Pearson of one metric's tables, symmetric; NaN where a measurement lacks the metric."""
    place = {label: at for at, label in enumerate(labels)}
    distance, correlation = (np.full((len(labels), len(labels)), np.nan) for _ in range(2))
    for row in rows:
        here = [place[row.first], place[row.second]]
        for matrix, value, own in ((distance, row.emd, 0.0), (correlation, row.pearson, 1.0)):
            matrix[here, here[::-1]] = np.nan if value is None else value
            matrix[here, here] = own
    return distance, correlation


def dark(colour: Sequence[float]) -> bool:
    """Whether white stands out more than black on a colour (red, green, blue in 0 to 1): relative luminance, WCAG 2."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722))) < MIDDLE


def save_matrices(comparison: MeasurementComparison, path: Path) -> None:
    """Both matrices of every metric with head tables, as a PNG.

    Raises:
        InputError: where the measurements have no such metric in common.
    """
    metrics = list(dict.fromkeys(row.metric for row in comparison.heads))
    if not metrics:
        raise InputError(
            "The measurements have no head tables in common, so there is nothing to draw. Measure head_weight, "
            "concentration, head_score or var on each, or give a file that ends in .md."
        )
    with rc_context(STYLE):
        drawn = Figure(figsize=(WIDTH, ROW_HEIGHT * len(metrics)), layout="constrained")
        FigureCanvasAgg(drawn)
        places = drawn.subplots(len(metrics), 2, squeeze=False)
        for metric, (left, right) in zip(metrics, places, strict=True):
            own = matrices(comparison.labels, [row for row in comparison.heads if row.metric == metric])
            for axes, matrix, title, colours, ends in (
                (left, own[0], "EMD", "Blues", (0.0, None)),
                (right, own[1], "Pearson", "RdBu", (-1.0, 1.0)),
            ):
                shown = axes.imshow(matrix, cmap=colours, vmin=ends[0], vmax=ends[1])
                names = [shortened(label, LONGEST_NAME // 2) for label in comparison.labels]
                axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
                axes.set_yticks(range(len(names)), names)
                axes.set_title(f"{metric}: {title}", loc="left", fontsize=8)
                for (y, x), value in np.ndenumerate(matrix):
                    if np.isfinite(value):
                        ink = "white" if dark(shown.to_rgba(value)) else "black"
                        axes.text(x, y, f"{value:.2g}", ha="center", va="center", fontsize=6, color=ink)
                drawn.colorbar(shown, ax=axes, fraction=0.05, pad=0.02)
        with replacing(path) as temporary:
            drawn.savefig(temporary, format="png", dpi=200)
