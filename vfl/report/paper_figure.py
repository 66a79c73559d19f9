"""How figures for a paper look, whatever they show; a notebook shows them, too."""

from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

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


class PaperAxes(Axes):
    """Axes of a grid whose ticks and labels take the same room wherever the layout moves them: it is measured once.

    The layout asks for it twice, which is a quarter of the time that a figure of many panels takes.
    """

    _around: tuple[float, float, float, float] | None = None

    def get_tightbbox(self, renderer: Any = None, *, for_layout_only: bool = False, **options: Any) -> Bbox | None:
        """As of all axes; for the layout, from their place and what was around it at first, in pixels."""
        if not for_layout_only:
            return super().get_tightbbox(renderer, **options)
        inner = self.get_window_extent(renderer)
        if self._around is None:
            outer = super().get_tightbbox(renderer, for_layout_only=True, **options)
            if outer is None:
                return None
            self._around = (inner.x0 - outer.x0, inner.y0 - outer.y0, outer.x1 - inner.x1, outer.y1 - inner.y1)
        left, below, right, above = self._around
        return Bbox.from_extents(inner.x0 - left, inner.y0 - below, inner.x1 + right, inner.y1 + above)


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
