"""How figures for a paper look, whatever they show."""

from typing import Any

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "axes.linewidth": 0.6,
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
