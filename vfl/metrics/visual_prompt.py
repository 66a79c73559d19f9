"""A box drawn around the object: does it help, and does attention follow it, for each type of question.

Each image with boxes is asked as it is and with the outline of its boxes drawn in, both judged alike. Source:
"Unveiling Visual Perception in Language Models" (Bi et al., CVPR 2025).
"""

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageColor, ImageDraw

from vfl.errors import InputError
from vfl.metrics.edited_prompts import boxed_images, check_pairs, question_on, replies_of
from vfl.metrics.head_weight import region_masses
from vfl.metrics.objects import Places, object_tokens
from vfl.metrics.prompts import in_lots
from vfl.metrics.result import (
    Result,
    by_function,
    cluster_of,
    cut_answers,
    mean_curve,
    mean_scalar,
    result,
    share_scalar,
)
from vfl.metrics.spec import HEADS, SHARE, Metric
from vfl.metrics.var import Query
from vfl.models.vlm import VLM
from vfl.probes.pair import Pair, Which

COLOUR = "red"
WIDTH = 0.01  # of the image's shorter side, at least 1 pixel


def visual_prompt(
    vlm: VLM, pairs: Sequence[Pair], *, colour: str = COLOUR, width: float = WIDTH, query: Query = "token"
) -> Result:
    """Accuracy and region attention with and without a box drawn around the object, for each function.

    Args:
        vlm: the model.
        pairs: probe pairs; target and source images that have a box are asked.
        colour: of the outline, a name or "#rrggbb".
        width: of the outline, as a share of the image's shorter side, at least 1 pixel.
        query: whose attention, see vfl/metrics/heads.py.

    Returns:
        For each function f, scalars "f/off" and "f/on" (accuracy, Wilson), "f/gain" (on - off, bootstrap), over pairs,
        "f/region_off", "f/region_on" (attention to the region, mean over heads and layers), and curves of the last two
        over layers. "without_object": ids of pairs without a box; without any box there are no scalars.

    Raises:
        InputError: without pairs, or for an unknown colour or width.
    """
    check_pairs(pairs, "visual_prompt")
    check(vlm, colour=colour, width=width)
    asked = list(boxed_images(pairs))
    places = Places(vlm)
    scalars: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    cut: dict[str, list[bool]] = {}
    for function, rows in by_function([pair.function for pair, _ in asked]).items():
        right: list[list[bool]] = []
        weights: list[list[list[float]]] = []
        clusters = [cluster_of(asked[row][0]) for row in rows]
        for lot in in_lots(asked[row] for row in rows):
            questions = [
                [
                    question_on(vlm, pair, which, image)
                    for image in (pair.path(which), outlined(pair, which, colour, width))
                ]
                for pair, which in lot
            ]
            # without and with the outline, one after the other
            flat = [question for of_image in questions for question in of_image]
            insides = [
                object_tokens(places.of(of_image[0].encoded), pair.boxes[which])
                for (pair, which), of_image in zip(lot, questions, strict=True)
            ]
            answers = replies_of(vlm, flat)
            twice = [inside for inside in insides for _ in range(2)]
            masses = region_masses(vlm, [question.encoded for question in flat], twice, query=query)
            for at in range(0, len(flat), 2):
                right.append([answer.right for answer in answers[at : at + 2]])
                cut.setdefault(function, []).append(answers[at].cut)
                weights.append([mass[1].mean(-1).tolist() for mass in masses[at : at + 2]])
        for name, flags in zip(("off", "on"), zip(*right, strict=True), strict=True):
            scalars[f"{function}/{name}"] = share_scalar(flags, clusters=clusters)
        scalars[f"{function}/gain"] = mean_scalar([float(on) - float(off) for off, on in right], clusters=clusters)
        for at, name in enumerate(("region_off", "region_on")):
            by_layer = [sample[at] for sample in weights]
            curves[f"{function}/{name}"] = mean_curve(by_layer, clusters=clusters)
            scalars[f"{function}/{name}"] = mean_scalar(
                [sum(values) / len(values) for values in by_layer], clusters=clusters
            )
    options = {"colour": colour, "width": width, "query": query, "region": "any overlap with the box"}
    with_box = {pair.id for pair, _ in asked}
    without = [pair.id for pair in pairs if pair.id not in with_box]
    return result(len(pairs), scalars, curves, options, without_object=without, **cut_answers(cut))


def outlined(pair: Pair, which: Which, colour: str = COLOUR, width: float = WIDTH) -> Image.Image:
    """One image of a pair with its boxes drawn in; the line lies around the box where there is room."""
    image = pair.open(which).copy()
    line = max(1, round(width * min(image.size)))
    drawing = ImageDraw.Draw(image)
    for x0, y0, x1, y1 in pair.boxes[which]:
        right, bottom = min(image.width - 1, x1 + line), min(image.height - 1, y1 + line)
        drawing.rectangle((max(0, x0 - line), max(0, y0 - line), right, bottom), outline=colour, width=line)
    return image


def check(vlm: VLM, *, colour: str = COLOUR, width: float = WIDTH) -> None:
    """Raises InputError for an unknown colour or width."""
    if not 0 < width < 0.5:
        raise InputError(f"width={width}: give the outline's share of the image's shorter side, above 0 and below .5.")
    try:
        ImageColor.getrgb(colour)
    except ValueError as error:
        raise InputError(f"colour={colour!r} is no colour; give a name such as red, or #rrggbb.") from error


SPEC = Metric(
    function=visual_prompt,
    check=check,
    needs="pairs with boxes",
    title="Drawing a box",
    read="Accuracy with the object’s outline drawn into the image (on) and without (off), and how much attention falls "
    "inside the box. A gain without more attention there is not due to looking.",
    use="Draw boxes into your prompts only for functions with a gain whose interval lies above 0.",
    source=HEADS,
    equation="gain = accuracy(outlined) − accuracy(plain); r = Σᵢ aᵢ over the object’s tokens",
    unit=SHARE,
    units={"region_on": "attention mass", "region_off": "attention mass"},
    only_images="it draws a box into the picture",
)
