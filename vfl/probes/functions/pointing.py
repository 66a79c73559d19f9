"""Pointing: grounding with the centre of the object as the answer."""

from dataclasses import replace
from random import Random

from vfl.models.boxes import pixel_text
from vfl.probes.functions import grounding
from vfl.probes.pair import DrawnPair
from vfl.probes.style import Style


def draw_pair(rng: Random, style: Style, index: int) -> DrawnPair:
    """A grounding pair whose answers are points; an answer counts inside the object's box."""
    return _pointed(grounding.draw_pair(rng, style, index))


def draw_group(rng: Random, style: Style, size: int) -> list[DrawnPair]:
    """A group of grounding with points as answers."""
    return [_pointed(pair) for pair in grounding.draw_group(rng, style, size)]


def _pointed(pair: DrawnPair) -> DrawnPair:
    x0, y0, x1, y1 = pair.boxes["image"][0]
    u0, v0, u1, v1 = pair.boxes["source_image"][0]
    return replace(
        pair,
        function="pointing",
        match="point",
        answer=pixel_text(((x0 + x1) / 2, (y0 + y1) / 2)),
        source_answer=pixel_text(((u0 + u1) / 2, (v0 + v1) / 2)),
    )
