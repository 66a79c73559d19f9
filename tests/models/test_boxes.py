"""Every family's way of writing boxes and points goes there and back within its own rounding."""

from random import Random

import pytest

from vfl.errors import InputError
from vfl.models.boxes import (
    CONVENTIONS,
    GEMINI,
    GLM,
    INTERNVL,
    MOLMO2,
    PALIGEMMA,
    PIXEL,
    QWEN2,
    THOUSANDTHS_JSON,
    UNIT,
    BoxConvention,
    convention_of,
    pixel_text,
)

# (file, resized): odd, not square, larger and smaller than the model's
SIZES = [((448, 448), (448, 448)), ((641, 427), (644, 420)), ((97, 1203), (112, 1204)), ((80, 80), (80, 80))]
ODD = [*SIZES, ((33, 2001), (28, 1988))]


def unit(convention: BoxConvention, image_size: tuple[int, int], model_size: tuple[int, int]) -> tuple[float, float]:
    """Pixels of the file that one written step is worth, in x and in y."""
    extent = model_size if convention.units is None else (convention.units, convention.units)
    step = 10.0**-convention.decimals
    return step * image_size[0] / extent[0], step * image_size[1] / extent[1]


@pytest.mark.parametrize("convention", CONVENTIONS, ids=lambda convention: convention.name)
@pytest.mark.parametrize(("image_size", "model_size"), ODD)
def test_boxes_and_points_survive_the_round_trip(
    convention: BoxConvention, image_size: tuple[int, int], model_size: tuple[int, int]
) -> None:
    rng = Random(convention.name)
    width, height = image_size
    steps = unit(convention, image_size, model_size)
    for _ in range(200):
        x0, y0 = rng.uniform(0, width - 1), rng.uniform(0, height - 1)
        box = (x0, y0, rng.uniform(x0 + 0.5, width), rng.uniform(y0 + 0.5, height))
        text = convention.format_box(box, image_size, model_size)
        back = convention.parse_box(text, image_size, model_size)
        assert back is not None, text
        # half a step by rounding; a box thinner than a step, and the last of 1024 tokens, may take a whole one more
        for axis, (there, again) in enumerate(zip(box, back, strict=True)):
            thin = box[axis % 2 + 2] - box[axis % 2] <= steps[axis % 2]
            slack = 1.5 if thin or convention.largest is not None else 0.5
            assert abs(there - again) <= slack * steps[axis % 2] + 1e-6, (box, text, back)
        # writing what was read changes nothing
        assert convention.format_box(back, image_size, model_size) == text
        point = (rng.uniform(0, width), rng.uniform(0, height))
        text = convention.format_point(point, image_size, model_size)
        again = convention.parse_point(text, image_size, model_size)
        assert again is not None, text
        slack = 1.0 if convention.largest is not None else 0.5
        assert all(abs(point[axis] - again[axis]) <= slack * steps[axis] + 1e-6 for axis in (0, 1)), (point, text)


@pytest.mark.parametrize("convention", CONVENTIONS, ids=lambda convention: convention.name)
def test_corners_and_specks_can_be_written(convention: BoxConvention) -> None:
    for image_size, model_size in ODD:
        width, height = image_size
        for box in [(0, 0, width, height), (width - 0.1, height - 0.1, width, height), (0, 0, 0.1, 0.1)]:
            text = convention.format_box(box, image_size, model_size)
            assert convention.parse_box(text, image_size, model_size) is not None, (box, text)


@pytest.mark.parametrize(
    ("convention", "text"),
    [
        (PIXEL, "[16, 32, 32, 48]"),
        (PIXEL, "The cat is at [16, 32, 32, 48]."),
        (PIXEL, '```json\n[\n  {"bbox_2d": [16, 32, 32, 48], "label": "cat 2"}\n]\n```'),
        (PIXEL, "16, 32, 32, 48"),
        (PIXEL, "(16, 32), (32, 48)"),
        (PIXEL, "One of 2 cats: 16 32 32 48."),
        (THOUSANDTHS_JSON, '{"bbox_2d": [200, 400, 400, 600]}'),
        (QWEN2, "<|object_ref_start|>cat<|object_ref_end|><|box_start|>(200,400),(400,600)<|box_end|>"),
        (UNIT, "[0.20, 0.40, 0.40, 0.60]"),
        (UNIT, "[.2, .4, .4, .6]"),
        (INTERNVL, "<ref>cat</ref><box>[[200, 400, 400, 600]]</box>"),
        (GEMINI, '[{"box_2d": [400, 200, 600, 400], "label": "cat"}]'),
    ],
)
def test_wrapping_is_ignored(convention: BoxConvention, text: str) -> None:
    assert convention.parse_box(text, (80, 80), (80, 80)) == pytest.approx((16, 32, 32, 48))


def test_the_resize_is_undone() -> None:
    assert PIXEL.parse_box("[16, 32, 32, 48]", (160, 40), (80, 80)) == pytest.approx((32, 16, 64, 24))
    assert PIXEL.format_box((32, 16, 64, 24), (160, 40), (80, 80)) == "[16, 32, 32, 48]"


def test_paligemma_writes_y_first_in_1024_tokens() -> None:
    assert (
        PALIGEMMA.format_box((256, 512, 1024, 1024), (1024, 1024), (224, 224)) == "<loc0512><loc0256><loc1023><loc1023>"
    )
    two = "<loc0512><loc0256><loc0600><loc0600> cat ; <loc0000><loc0000><loc0001><loc0001> cat"
    assert PALIGEMMA.parse_box(two, (1024, 1024), (224, 224)) == (256, 512, 600, 600)


@pytest.mark.parametrize(
    ("convention", "text"),
    [
        (PIXEL, ""),
        (PIXEL, "on the left"),
        (PIXEL, "[16, 32, 32]"),
        (PIXEL, "[16, 32, 32, 48, 50]"),
        (PIXEL, "16, 32, 32, 48, 50"),
        (PIXEL, "[32, 32, 16, 48]"),
        (PIXEL, "[16, 32, 32, 81]"),
        (PIXEL, "[-1, 32, 32, 48]"),
        (PIXEL, "[16, 32, 16, 48]"),
        (UNIT, "[16, 32, 32, 48]"),
        (UNIT, "[0.2, 0.4, 0.4, 1.2]"),
        (THOUSANDTHS_JSON, '{"bbox_2d": [200, 400, 400, 1001]}'),
        (PALIGEMMA, "[200, 400, 400, 600]"),
        (PALIGEMMA, "<loc0512><loc0256><loc0600>"),
        (PALIGEMMA, "<loc0512><loc0256><loc0600><loc1024>"),
    ],
)
def test_wrong_counts_and_ranges_are_no_box(convention: BoxConvention, text: str) -> None:
    assert convention.parse_box(text, (80, 80), (80, 80)) is None
    assert convention.pixel_answer("box", text, (80, 80), (80, 80)) is None


def test_a_box_is_no_point() -> None:
    for convention in CONVENTIONS:
        text = convention.format_box((16, 32, 32, 48), (80, 80), (80, 80))
        assert convention.parse_point(text, (80, 80), (80, 80)) is None


def test_pixel_answers_take_the_form_of_a_pair() -> None:
    assert PIXEL.pixel_answer("box", "[16, 32, 32, 48]", (80, 80), (80, 80)) == "[16, 32, 32, 48]"
    assert UNIT.pixel_answer("point", "[0.25, 0.5]", (90, 80), (80, 80)) == "[22.5, 40]"
    assert pixel_text((1234.56, 0)) == "[1234.6, 0]"


def test_the_prompt_is_the_familys_own() -> None:
    assert PIXEL.box_prompt("Where is the cat?", "cat") == (
        "Where is the cat? Answer with the box [x0, y0, x1, y1] in pixels."
    )
    assert PALIGEMMA.box_prompt("Where is the cat?", "cat") == "detect cat"
    # without a label there is nothing to detect: the question itself is asked
    assert PALIGEMMA.box_prompt("Where is the cat?") == "Where is the cat?"
    # a user's braces are text
    assert PALIGEMMA.box_prompt("?", "a {question} {0}") == "detect a {question} {0}"
    assert PIXEL.box_prompt("Where is {label}?", "cat").startswith("Where is {label}?")


# Answers in each convention's forms, as the projects' code and issues show them, on a picture of 1000 x 500 that the
# processor leaves as it is.
WRITTEN = [
    (PIXEL, '```json\n[\n\t{"bbox_2d": [100, 50, 300, 250], "label": "cat"}\n]\n```', (100, 50, 300, 250)),
    (PIXEL, "The cat is at [100, 50, 300, 250].", (100, 50, 300, 250)),
    (THOUSANDTHS_JSON, '[{"bbox_2d": [100, 100, 300, 500], "label": "cat"}]', (100, 50, 300, 250)),
    (THOUSANDTHS_JSON, '```json\n{"point_2d": [400, 500], "label": "cat"}\n```', (400, 250)),
    (
        QWEN2,
        "cat<|box_start|>(100,100),(300,500)<|box_end|>",
        (100, 50, 300, 250),
    ),
    (QWEN2, "(400,500)", (400, 250)),
    (UNIT, "[0.10, 0.10, 0.30, 0.50]", (100, 50, 300, 250)),
    (INTERNVL, "<ref>cat</ref><box>[[100, 100, 300, 500]]</box>", (100, 50, 300, 250)),
    (PALIGEMMA, "<loc0102><loc0102><loc0512><loc0307> cat", (99.6, 49.8, 299.8, 250)),
    (GEMINI, '```json\n[{"box_2d": [100, 100, 500, 300], "label": "cat"}]\n```', (100, 50, 300, 250)),
    (GEMINI, '[{"point": [500, 400], "label": "cat"}]', (400, 250)),
    (GLM, "It is here: <|begin_of_box|>[[100,100,300,500]]<|end_of_box|>", (100, 50, 300, 250)),
    (GLM, "[100, 100, 300, 500]", (100, 50, 300, 250)),
    (MOLMO2, '<points coords="1 1 400 500">cat</points>', (400, 250)),
    (MOLMO2, '<points coords="1 1 098 500 2 400 500">boats</points>', (98, 250)),
    (MOLMO2, "There are none.", None),
]


@pytest.mark.parametrize(("convention", "text", "place"), WRITTEN)
def test_answers_as_the_models_write_them(
    convention: BoxConvention, text: str, place: tuple[float, ...] | None
) -> None:
    size = (1000, 500)
    is_point = place is None or len(place) == 2
    read = convention.parse_point(text, size, size) if is_point else convention.parse_box(text, size, size)
    assert read == (None if place is None else pytest.approx(place, abs=0.5))


def test_every_convention_has_answers_and_a_name() -> None:
    assert {convention.name for convention, _, _ in WRITTEN} == {convention.name for convention in CONVENTIONS}
    assert all(convention_of(convention.name) is convention for convention in CONVENTIONS)
    with pytest.raises(InputError, match="boxes='thirds' is no way of writing boxes; expected one of pixel"):
        convention_of("thirds")
