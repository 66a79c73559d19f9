"""Figures for papers: drawn once, and nothing of a panel lies outside the figure or over its neighbour."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from vfl.report.heat import Heat
from vfl.report.lines import Panel, Series
from vfl.report.picture import picture


def figure(columns: int):
    at = list(range(11))
    panels = [
        Panel(f"panel {n}", "layer", "nats", [Series(name, at, [10.0**n * k for k in at]) for name in ("a", "b")])
        for n in range(columns)
    ]
    return picture("title", panels=panels, heats=[Heat("heads", [[0.1, 0.2], [0.3, 0.4]])])


def pixels(write):
    buffer = BytesIO()
    write(buffer)
    return np.asarray(Image.open(buffer))


def test_what_is_drawn_once_is_what_savefig_draws_twice():
    ours = pixels(lambda file: figure(3).write_png(file, 100))
    theirs = pixels(lambda file: figure(3).savefig(file, format="png", dpi=100))
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_ticks_and_labels_have_room(count):
    drawn = figure(count)
    drawn.write_png(BytesIO(), 200)
    whole = drawn.bbox
    boxes = [axes.get_tightbbox() for axes in drawn.axes]
    for box in boxes:
        assert box.x0 >= whole.x0 - 1
        assert box.y0 >= whole.y0 - 1
        assert box.x1 <= whole.x1 + 1
        assert box.y1 <= whole.y1 + 1
    panels = boxes[: count + 1]
    for number, box in enumerate(panels):
        for other in panels[number + 1 :]:
            assert not box.shrunk(0.98, 0.98).overlaps(other.shrunk(0.98, 0.98))
