"""How figures for a paper look, whatever they show; a notebook shows them, too."""

from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "axes.linewidth": 0.6,
    "axes.titley": 1.0,  # no ticks are above the axes: where titles stand need not be found out
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
LONGEST_NAME = 40  # characters: a longer name leaves no room for the curves
NOTEBOOK_DPI = 150


class PaperFigure(Figure):
    """A figure without pyplot: nothing keeps it alive, and no window or second picture of it appears.

    A notebook knows the figures of pyplot alone by itself, so this one shows itself.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._agg = FigureCanvasAgg(self)

    def write_png(self, file: Path | BinaryIO, dpi: int) -> None:
        """The figure as PNG, drawn once: `savefig` draws what has a layout twice, to settle it first."""
        self.dpi = dpi
        self._agg.print_png(file)

    def _repr_png_(self) -> bytes:
        picture = BytesIO()
        self.write_png(picture, NOTEBOOK_DPI)
        return picture.getvalue()
