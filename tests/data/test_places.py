"""Where images stand in the text: `<image>` marks, typed entries, and the rule for rows that mark no place."""

import pytest

from vfl.data import BadRow, read
from vfl.data.turns import read_turns

IMAGE = {"type": "image"}


def text(words):
    return {"type": "text", "text": words}


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("What?", [text("What?")]),
        ("<image>\nWhat?", [IMAGE, text("What?")]),
        ("What?\n<image>", [text("What?"), IMAGE]),
        ("<image>What?", [IMAGE, text("What?")]),
        ("<image> What?", [IMAGE, text(" What?")]),
        ("<image>\n\nWhat?", [IMAGE, text("\nWhat?")]),
        ("<image>", [IMAGE]),
        ("<image>\n", [IMAGE]),
        ("\n<image>", [IMAGE]),
        ("<image><image>", [IMAGE, IMAGE]),
        ("<image>\n<image>\nCompare.", [IMAGE, IMAGE, text("Compare.")]),
        ("Compare.\n<image>\n<image>", [text("Compare."), IMAGE, IMAGE]),
        ("In <image> a\nand in <image> b", [text("In "), IMAGE, text(" a\nand in "), IMAGE, text(" b")]),
        ("First:\n<image>\nSecond:\n<image>", [text("First:\n"), IMAGE, text("\nSecond:"), IMAGE]),
        ("a\n", [text("a\n")]),
        ("<IMAGE> < image>", [text("<IMAGE> < image>")]),
    ],
)
def test_marks_in_text(written, parts):
    """A line's end that sets a mark apart from the text belongs to the mark; no other sign of the text is lost."""
    assert read_turns([{"role": "user", "content": written}], "messages") == [{"role": "user", "content": parts}]


def read_row(write, folder, row):
    (found,) = read(write("json", folder / "row.json", [row]), images=folder)
    return found


def content(sample, turn=0):
    return sample.messages[turn]["content"]


def test_images_without_a_mark_go_before_the_first_question(folder, write, turns):
    row = {
        "messages": [{"role": "system", "content": "Be brief."}, *turns("What?", "Red."), *turns("And?", "Blue.")],
        "images": ["red.png", "below/blue.jpg"],
    }
    sample = read_row(write, folder, row)
    assert content(sample, 1) == [IMAGE, IMAGE, text("What?")]
    assert content(sample, 3) == [text("And?")]
    assert [image.name for image in sample.images] == ["red.png", "below/blue.jpg"]


def test_a_preference_row_has_its_images_in_both_conversations(folder, write):
    row = {"prompt": "What?", "chosen": "Red.", "rejected": "Blue.", "images": ["red.png"]}
    sample = read_row(write, folder, row)
    assert content(sample) == sample.rejected[0]["content"] == [IMAGE, text("What?")]
    assert len(sample.images) == 1


def test_images_take_the_places_in_reading_order(folder, write, turns):
    row = {
        "messages": turns("Is <image> like", "Yes.") + turns("this <image>?", "No."),
        "images": ["below/blue.jpg", "red.png"],
    }
    sample = read_row(write, folder, row)
    assert [image.open().size for image in sample.images] == [(5, 7), (8, 6)]


def test_typed_entries_are_places(folder, write, turns):
    typed = [text("Is"), IMAGE, text("like"), IMAGE, text("?")]
    sample = read_row(write, folder, {"messages": turns(typed, "No."), "images": ["red.png", "below/blue.jpg"]})
    assert content(sample) == typed


@pytest.mark.parametrize("column", [{}, {"images": []}, {"images": None}])
@pytest.mark.parametrize(
    "entry",
    [
        {"type": "image", "image": "red.png"},
        {"type": "image", "path": "red.png"},
        {"type": "image", "url": "red.png"},
        {"type": "image", "image": {"path": "red.png", "bytes": None}},
        {"type": "image_url", "image_url": {"url": "red.png"}},
        {"type": "image", "text": None, "path": None, "image": "red.png"},
    ],
)
def test_entries_may_hold_their_image(folder, write, turns, entry, column):
    row = {"messages": turns([entry, text("What?")], [text("Red.")])} | column
    sample = read_row(write, folder, row)
    assert content(sample) == [IMAGE, text("What?")]
    assert sample.images[0].open().size == (8, 6)


def test_entries_with_and_without_their_image_mix(folder, write, turns):
    typed = [IMAGE, {"type": "image", "path": "red.png"}, text("?")]
    sample = read_row(write, folder, {"messages": turns(typed, "No."), "images": ["below/blue.jpg"]})
    assert [image.name for image in sample.images] == ["below/blue.jpg", "red.png"]


def test_an_image_may_be_base64_in_its_address(folder, write, turns, png):
    import base64

    address = "data:image/png;base64," + base64.b64encode(png("purple", (3, 2))).decode()
    entry = {"type": "image_url", "image_url": {"url": address}}
    sample = read_row(write, folder, {"messages": turns([entry, text("?")], "A")})
    assert sample.images[0].open().size == (3, 2)
    broken = {"type": "image_url", "image_url": {"url": "data:image/png;base64,@@"}}
    assert "broken base64" in read_row(write, folder, {"messages": turns([broken, text("?")], "A")}).reason


@pytest.mark.parametrize(
    ("question", "images"),
    [
        ("<image> and <image>?", ["red.png"]),
        ("<image>?", ["red.png", "below/blue.jpg"]),
        ("<image>?", []),
        ("<image>?", None),
        ([{"type": "image"}, {"type": "text", "text": "<image>\nHow many?"}], ["red.png"]),
        ([{"type": "image", "path": "red.png"}, {"type": "text", "text": "?"}], ["red.png"]),
    ],
)
def test_images_and_places_must_be_as_many(folder, write, turns, question, images):
    bad = read_row(write, folder, {"messages": turns(question, "A"), "images": images})
    assert isinstance(bad, BadRow)
    assert f"{len(images or [])} images in its columns and" in bad.reason


@pytest.mark.parametrize("role", ["assistant", "system"])
def test_images_stand_in_user_turns_only(folder, write, turns, role):
    marked = [{"role": "system", "content": "S"}, *turns("Q", "A")]
    next(turn for turn in marked if turn["role"] == role)["content"] = "<image>"
    bad = read_row(write, folder, {"messages": marked, "images": ["red.png"]})
    assert f"({role}) holds an image" in bad.reason


def test_an_image_in_a_preference_answer_is_refused(folder, write):
    row = {"prompt": "Q <image>", "chosen": "A", "rejected": "<image>", "images": ["red.png"]}
    assert "(assistant) holds an image" in read_row(write, folder, row).reason


def test_both_image_columns_are_one_too_many(folder, write, turns):
    row = {"messages": turns("Q", "A"), "images": ["red.png"], "image": "red.png"}
    assert read_row(write, folder, row).reason == "the row has both images and image; expected one of them"
