"""The functions that probes are generated for. To add one, write a file with a `draw_pair` and add its row here."""

from collections.abc import Callable
from random import Random

from vfl.probes.functions import chart, colour, counting, grounding, ocr, pointing, recognition, relation
from vfl.probes.pair import DrawnPair
from vfl.probes.style import Style

DrawPair = Callable[[Random, Style, int], DrawnPair]
DrawGroup = Callable[[Random, Style, int], list[DrawnPair]]

FUNCTIONS: dict[str, DrawPair] = {
    "recognition": recognition.draw_pair,
    "counting": counting.draw_pair,
    "grounding": grounding.draw_pair,
    "ocr": ocr.draw_pair,
    "pointing": pointing.draw_pair,
    "colour": colour.draw_pair,
    "relation": relation.draw_pair,
    "chart": chart.draw_pair,
}
# Those that also draw several answers of one scene (vfl/probes/group.py), by `draw_group(rng, style, size)`.
GROUPS: dict[str, DrawGroup] = {
    "recognition": recognition.draw_group,
    "counting": counting.draw_group,
    "grounding": grounding.draw_group,
    "ocr": ocr.draw_group,
    "pointing": pointing.draw_group,
    "colour": colour.draw_group,
    "relation": relation.draw_group,
    "chart": chart.draw_group,
}
PAPER_FUNCTIONS = ("recognition", "counting", "grounding", "ocr")
