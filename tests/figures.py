"""What is drawn in a figure, as numbers."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

PNG = b"\x89PNG\r\n\x1a\n"


def drawn(figure: Figure) -> Figure:
    """The figure, which is pyplot's in no way and shows itself in a notebook."""
    assert isinstance(figure, Figure)
    assert figure.canvas.manager is None
    assert figure._repr_png_().startswith(PNG)
    return figure


def lines_of(axes: Axes) -> list[list[float]]:
    """The heights of each line."""
    return [list(map(float, line.get_ydata())) for line in axes.lines]


def dots_of(axes: Axes, group: str | None = None) -> list[float]:
    """The places of lone dots from left to right of their axis, those of a group or without one, row by row."""
    dots = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1]
    named = [line for line in dots if (line.get_label() == group if group else line.get_label().startswith("_"))]
    return [float(line.get_xdata()[0]) for line in sorted(named, key=lambda line: line.get_ydata()[0])]
