"""A figure fit for a paper: several maps at relative depth."""

from matplotlib import rc_context

from vfl.locate.report.compare import Comparison
from vfl.report.charts import inks
from vfl.report.paper_figure import LONGEST_NAME, STYLE, WIDTH, PaperFigure
from vfl.report.words import shortened


def depth_figure(comparison: Comparison) -> PaperFigure:
    """Peaks of every map at relative depth: one row a model, one colour a function."""
    ink = inks(comparison.functions)
    rows = len(comparison.labels)
    with rc_context(STYLE):
        figure = PaperFigure(figsize=(WIDTH, 0.95 + 0.34 * rows), layout="constrained")
        axes = figure.subplots()
        for name in comparison.functions:
            rows_of = [(peaks[name], row) for row, peaks in enumerate(comparison.peaks) if name in peaks]
            x, y = zip(*rows_of, strict=True)
            # A thin line joins a function's peaks, so that a change of order between models shows as a crossing.
            axes.plot(x, y, color=ink[name].colour, lw=0.8, alpha=0.5, ls=(0, (2, 2)))
            axes.plot(
                x, y, "o", color=ink[name].colour, ms=6, mec="white", mew=0.8, label=shortened(name, LONGEST_NAME)
            )
        axes.set_yticks(range(rows), [shortened(label, LONGEST_NAME) for label in comparison.labels])
        axes.set_ylim(rows - 0.5, -0.5)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("relative depth of the peak layer")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        if comparison.functions:
            figure.legend(
                loc="outside upper center",
                ncols=min(len(comparison.functions), 6),
                frameon=False,
                handletextpad=0.2,
                columnspacing=1.2,
            )
    return figure
