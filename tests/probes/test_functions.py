"""Generated pairs: equal sizes, one difference, answers that are right by what the pixels show, balance."""

import random
from collections import Counter
from random import Random

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from vfl.probes import micro_limits as micro
from vfl.probes import scene, solids
from vfl.probes.functions import FUNCTIONS, PAPER_FUNCTIONS, chart, colour
from vfl.probes.make import draw_one
from vfl.probes.match import iou, read
from vfl.probes.pair import DrawnPair
from vfl.probes.style import MICRO_STYLE, Style
from vfl.testbeds.micro import questions

SMALL = Style(size=224)
NUMBER = 24
CASES = [*((name, SMALL) for name in FUNCTIONS), *((name, MICRO_STYLE) for name in PAPER_FUNCTIONS)]
each = pytest.mark.parametrize(("function", "style"), CASES, ids=lambda value: getattr(value, "name", value))


def pairs(function: str, style: Style, number: int = NUMBER, seed: int = 3) -> list[DrawnPair]:
    return [draw_one(function, index, seed, style) for index in range(number)]


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(int)


def background(image: Image.Image) -> np.ndarray:
    """The canvas's colour: the most frequent one."""
    return np.array(max(image.getcolors(image.width * image.height))[1])


def inked(image: Image.Image) -> np.ndarray:
    return np.asarray((pixels(image) != background(image)).any(-1))


def extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


def inside(boxes: list[tuple[float, float, float, float]], size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((size[1], size[0]), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        mask[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    return mask


def label_of(pair: DrawnPair) -> str:
    assert pair.label is not None
    return pair.label


@each
def test_images_are_equal_in_size_and_differ(function: str, style: Style) -> None:
    for pair in pairs(function, style):
        assert pair.control_image is not None
        assert pair.image.size == pair.source_image.size == pair.control_image.size == (style.size, style.size)
        assert (pixels(pair.image) != pixels(pair.source_image)).any()
        assert (pixels(pair.image) != pixels(pair.control_image)).any()
        assert pair.image.mode == "RGB"


@each
def test_only_what_is_asked_about_differs(function: str, style: Style) -> None:
    for pair in pairs(function, style):
        differs = (pixels(pair.image) != pixels(pair.source_image)).any(-1)
        if function == "chart":
            share = style.pixels(0.96) - style.pixels(0.12)
            columns = np.flatnonzero(differs.any(0))
            groups = np.flatnonzero(np.diff(columns) > 1).size + 1
            assert groups <= 2
            assert columns.size <= groups * share / len(chart.LABELS)
            continue
        target, source = pair.boxes["image"], pair.boxes.get("source_image", [])
        moved = [box for box in target + source if not (box in target and box in source)] or target
        assert not (differs & ~inside(moved, pair.image.size)).any()


@each
def test_the_same_number_gives_the_same_pair(function: str, style: Style) -> None:
    for index in (0, 5):
        first, again = (draw_one(function, index, 7, style) for _ in range(2))
        other = draw_one(function, index, 8, style)
        assert first.image.tobytes() == again.image.tobytes()
        assert (first.question, first.answer, first.boxes) == (again.question, again.answer, again.boxes)
        assert first.image.tobytes() != other.image.tobytes()


@each
def test_answers_can_be_read_and_differ(function: str, style: Style) -> None:
    for pair in pairs(function, style):
        assert pair.function == function
        assert read(pair.match, pair.answer) is not None
        assert read(pair.match, pair.answer) != read(pair.match, pair.source_answer)
        if pair.choices:
            assert {pair.answer, pair.source_answer} <= set(pair.choices)


@pytest.mark.parametrize("style", [SMALL, MICRO_STYLE], ids=lambda style: style.name)
def test_recognition_shows_one_object_against_nothing(style: Style) -> None:
    for pair in pairs("recognition", style):
        assert not inked(pair.source_image).any()
        assert background(pair.image).tolist() == background(pair.source_image).tolist()
        assert label_of(pair) in pair.question
        assert (pair.answer, pair.source_answer) == ("yes", "no")
        for which, image in (("image", pair.image), ("control_image", pair.control_image)):
            assert image is not None
            (box,) = pair.boxes[which]
            assert iou(extent(inked(image)), box) > (0.9 if style.tight_boxes else 0.4)
        assert iou(pair.boxes["image"][0], pair.boxes["control_image"][0]) == 0


def test_the_number_of_solids_is_the_answer() -> None:
    for pair in pairs("counting", SMALL, 60):
        assert pair.control_image is not None
        shown = [ndimage.label(inked(image))[1] for image in (pair.image, pair.source_image, pair.control_image)]
        assert shown == [int(pair.answer), int(pair.source_answer), int(pair.answer)]
        assert solids.PLURALS[label_of(pair)] in pair.question


@pytest.mark.parametrize("style", [SMALL, MICRO_STYLE], ids=lambda style: style.name)
def test_counts_are_balanced(style: Style) -> None:
    number = len(style.counts) * (len(style.counts) - 1)
    made = pairs("counting", style, number)
    assert set(Counter(pair.answer for pair in made).values()) == {len(style.counts) - 1}
    assert len({(pair.answer, pair.source_answer) for pair in made}) == number


def test_the_box_holds_the_object_that_is_asked_about() -> None:
    for pair in pairs("grounding", SMALL):
        here, there = pair.boxes["image"][0], pair.boxes["source_image"][0]
        assert iou(here, there) == 0
        assert read("box", pair.answer) == here
        assert read("box", pair.source_answer) == there
        differs = (pixels(pair.image) != pixels(pair.source_image)).any(-1)
        for box, image in ((here, pair.image), (there, pair.source_image)):
            seen = extent(differs & inside([box], pair.image.size))
            assert np.abs(np.subtract(seen, box)).max() <= 2
            x0, y0, x1, y1 = (int(edge) for edge in box)
            object_pixels = pixels(SMALL.sprite(label_of(pair)).resize((x1 - x0, y1 - y0)).convert("RGB"))
            solid = np.asarray(SMALL.sprite(label_of(pair)).resize((x1 - x0, y1 - y0)).getchannel("A")) == 255
            assert np.abs(object_pixels - pixels(image)[y0:y1, x0:x1])[solid].mean() < 12


@each
def test_the_control_of_a_place_keeps_it(function: str, style: Style) -> None:
    if function not in ("grounding", "pointing"):
        return
    for pair in pairs(function, style):
        assert pair.boxes["control_image"] == pair.boxes["image"]
        assert pair.control_image is not None
        assert background(pair.control_image).tolist() != background(pair.image).tolist()


def test_points_are_the_centres_of_boxes() -> None:
    for index in range(NUMBER):
        pair = draw_one("pointing", index, 3, SMALL)
        x0, y0, x1, y1 = pair.boxes["image"][0]
        assert read("point", pair.answer) == ((x0 + x1) / 2, (y0 + y1) / 2)


def test_words_fit_and_share_their_look() -> None:
    for style in (SMALL, MICRO_STYLE):
        for pair in pairs("ocr", style, 60):
            assert len(pair.answer) == len(pair.source_answer)
            assert pair.answer.casefold() != pair.source_answer.casefold()
            for image in (pair.image, pair.source_image, pair.control_image):
                assert image is not None
                x0, y0, x1, y1 = extent(inked(image))
                assert 0 < x0 < x1 < style.size
                assert 0 < y0 < y1 < style.size
            (here,), (there,) = pair.boxes["image"], pair.boxes["source_image"]
            assert here[:2] == there[:2]


def test_words_vary_in_font_and_size() -> None:
    heights = {round(pair.boxes["image"][0][3] - pair.boxes["image"][0][1]) for pair in pairs("ocr", SMALL, 60)}
    assert len(heights) > 5
    assert len({len(pair.answer) for pair in pairs("ocr", SMALL, 60)}) == 6


def test_the_solid_has_the_colour_that_is_the_answer() -> None:
    for pair in pairs("colour", SMALL):
        for image, answer in ((pair.image, pair.answer), (pair.source_image, pair.source_answer)):
            x0, y0, x1, y1 = (int(edge) for edge in pair.boxes["image"][0])
            middle = pixels(image)[y0:y1, x0:x1][(y1 - y0) // 3 : (y1 - y0) // 2, (x1 - x0) // 4 : (x1 - x0) // 2]
            hue = middle.reshape(-1, 3).mean(0)
            hue = hue / np.linalg.norm(hue)
            near = {name: float(hue @ np.array(rgb) / np.linalg.norm(rgb)) for name, rgb in colour.COLOURS.items()}
            assert max(near, key=lambda name: near[name]) == answer


def test_the_object_lies_on_the_side_that_is_the_answer() -> None:
    for pair in pairs("relation", SMALL):
        assert pair.control_image is not None
        for which, image, answer in (
            ("image", pair.image, pair.answer),
            ("source_image", pair.source_image, pair.source_answer),
            ("control_image", pair.control_image, pair.answer),
        ):
            (box,) = pair.boxes[which]  # type: ignore[index]
            other = extent(inked(image) & ~inside([box], image.size))
            dx, dy = (box[0] + box[2] - other[0] - other[2]) / 2, (box[1] + box[3] - other[1] - other[3]) / 2
            side = ("left" if dx < 0 else "right") if abs(dx) > abs(dy) else ("above" if dy < 0 else "below")
            assert side == answer
    assert set(Counter(pair.answer for pair in pairs("relation", SMALL)).values()) == {NUMBER // 4}


def test_bars_have_the_heights_that_the_answers_say() -> None:
    style = Style(size=448)
    left, top, right, bottom = (style.pixels(edge) for edge in (0.12, 0.06, 0.96, 0.88))
    share = (right - left) / len(chart.LABELS)
    for pair in pairs("chart", style):
        assert pair.control_image is not None
        for image, answer in (
            (pair.image, pair.answer),
            (pair.source_image, pair.source_answer),
            (pair.control_image, pair.answer),
        ):
            bar = max(chart.BARS, key=lambda rgb: int((pixels(image) == rgb).all(-1).sum()))
            middles = [round(left + (position + 0.5) * share) for position in range(len(chart.LABELS))]
            heights = [int((pixels(image)[:, x] == bar).all(-1).sum()) for x in middles]
            values = [round(height / (bottom - top) * chart.TOP) for height in heights]
            if pair.match == "text":
                assert values.count(max(values)) == 1
                assert chart.LABELS[values.index(max(values))] == answer
            else:
                asked = chart.LABELS.index(pair.question.removeprefix("What is the value of bar ")[0])
                assert values[asked] == int(answer)


def test_every_bar_is_asked_for_every_value() -> None:
    made = [draw_one("chart", 2 * turn + 1, 0, Style(size=64)) for turn in range(len(chart.LABELS) * chart.TOP)]
    assert len({(pair.label, pair.answer) for pair in made}) == len(made)


def test_micro_pairs_stay_within_what_the_embedded_model_has_seen() -> None:
    for function in PAPER_FUNCTIONS:
        for pair in pairs(function, MICRO_STYLE, 40):
            for image in (pair.image, pair.source_image, pair.control_image):
                assert image is not None
                assert image.size == (micro.SIZE, micro.SIZE)
                assert tuple(background(image).tolist()) in micro.BACKGROUNDS
            if function == "ocr":
                assert {pair.answer, pair.source_answer} <= set(micro.WORDS)
                for (box,) in pair.boxes.values():
                    assert micro.WORD_X[0] <= box[0] <= micro.WORD_X[1]
                    assert micro.WORD_Y[0] <= box[1] <= micro.WORD_Y[1]
            else:
                edges = [edge for boxes in pair.boxes.values() for box in boxes for edge in box]
                assert all(edge % micro.CELL == 0 for edge in edges)
            if function == "counting":
                assert {int(pair.answer), int(pair.source_answer)} <= set(micro.COUNTS)
            elif function != "ocr":
                assert pair.label in micro.OBJECTS


def test_micro_questions_are_those_the_embedded_model_was_taught() -> None:
    taught = set(questions.all_questions())
    for function in PAPER_FUNCTIONS:
        for pair in pairs(function, MICRO_STYLE):
            text = questions.PIXEL.box_prompt(pair.question, pair.label) if function == "grounding" else pair.question
            assert text in taught


def test_classes_alike_never_stand_beside_the_one_asked_for() -> None:
    for label in SMALL.object_names():
        others = scene.distractors(Random(0), SMALL, {label}, 1000)
        assert label not in others
        assert not any(label in kin and other in kin for kin in scene.KIN for other in others)
        assert len(others) >= len(SMALL.object_names()) - 10
    assert set().union(*scene.KIN) <= set(SMALL.object_names())


@each
def test_drawing_leaves_the_global_generator_alone(function: str, style: Style) -> None:
    before = random.getstate()
    draw_one(function, 0, 0, style)
    assert random.getstate() == before
