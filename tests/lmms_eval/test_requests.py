"""What a task asks: places of pictures, bounds, stop strings, and what is refused."""

import pytest
import tiny

from vfl.errors import InputError
from vfl.lmms_eval.requests import Stops, item_of, stops_of


@pytest.fixture(scope="module")
def vlm(loaded):
    return loaded("qwen2_5_vl")


@pytest.mark.parametrize(
    ("generation", "stops"),
    [
        ({}, Stops(None, ())),
        ({"until": ["\n\n"], "do_sample": False}, Stops(None, ())),  # what every task has that says nothing
        ({"until": "</s>", "max_new_tokens": 16, "temperature": 0, "num_beams": 1}, Stops(16, ("</s>",))),
        ({"until": ["\n\n", "\n", "###"], "do_sample": False, "temperature": 0.7}, Stops(None, ("\n", "###"))),
    ],
)
def test_bounds_and_stop_strings(generation, stops):
    assert stops_of(generation) == stops


def test_an_answer_ends_at_the_first_stop_string():
    assert Stops(None, ("\n", "###")).cut("three ### four\nfive") == "three"
    assert Stops(None, ()).cut(" three\n\nfour ") == "three\n\nfour"


@pytest.mark.parametrize("generation", [{"do_sample": True}, {"temperature": 0.7}, {"num_beams": 3}])
def test_sampling_is_refused_with_what_turns_it_off(generation):
    with pytest.raises(InputError, match=r"answers under a plan are greedy.*--gen_kwargs do_sample=False"):
        stops_of(generation)


def test_what_is_not_read_is_said_once(caplog):
    for _ in range(2):
        stops_of({"image_aspect_ratio": "original"})
    assert caplog.text.count("image_aspect_ratio") == 1


@pytest.mark.parametrize(
    ("context", "pictures", "kinds"),
    [
        ("How many?", 2, ["image", "image", "How many?"]),
        ("Is <image> like <image> ?", 2, ["Is", "image", "like", "image", "?"]),
        ("<image>\nHow many?", 1, ["image", "How many?"]),
        ("How many letters has <image>?", 0, ["How many letters has <image>?"]),
    ],
)
def test_pictures_stand_at_their_marks_or_before_the_text(vlm, context, pictures, kinds):
    item = item_of(vlm, "q", "task", context, [tiny.picture(seed=i) for i in range(pictures)], 8)
    (turn,) = item.messages
    assert [part.get("text", part["type"]) for part in turn["content"]] == kinds
    assert len(item.images) == pictures


@pytest.mark.parametrize(
    ("context", "visuals", "message"),
    [
        ("<image> <image>", [tiny.picture(seed=0)], "2 marks <image>, and there are 1 pictures"),
        ("What is said?", [{"array": [0.0], "sampling_rate": 16000}], "a dict was given where a picture is expected"),
        ("What happens?", ["clip.mp4"], "a str was given where a picture is expected"),
    ],
)
def test_what_can_not_be_shown_is_an_error(vlm, context, visuals, message):
    with pytest.raises(InputError, match=message):
        item_of(vlm, "q", "task", context, visuals, 8)
