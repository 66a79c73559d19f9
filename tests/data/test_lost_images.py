"""No row that has an image in another form is taken for a row of text."""

import pytest

from vfl.data import BadRow, Sample, read
from vfl.errors import InputError


def read_row(write, folder, row, **options):
    (found,) = read(write("json", folder / "row.json", [row]), images=folder, **options)
    return found


@pytest.mark.parametrize(
    "column",
    [
        {"image_path": "red.png"}, {"img": "red.png"}, {"image_url": "red.png"}, {"media": ["red.png"]},
        {"img_path": "red"}, {"image_file": "red.png"}, {"picture": "red.png"}, {"photos": ["red.png"]},
        {"image_1": "red.png"}, {"Image": "red.png"}, {"left_image": {"path": "red.png"}}, {"url": "a/red.png"},
        {"file_name": "below/blue.jpg"}, {"jpg": "x"}, {"image_paths": ["red.png"]}, {"x": "data:image/png;base64,aa"},
        {"image_base64": "iVBORw0KGgo="}, {"decoded": {"bytes": None, "path": "red.png"}},
        {"extra": {"n": 1, "image": "red.png"}},
    ],
    ids=str,
)  # fmt: skip
def test_an_image_like_column_of_a_text_row_is_an_error(folder, write, turns, column):
    row = {"messages": turns("What?", "Red.")} | column
    found = read_row(write, folder, row)
    assert isinstance(found, BadRow)
    (name,) = column
    assert f"image_column: {name}" in found.reason


@pytest.mark.parametrize("container", ["jsonl", "parquet", "memory"])
def test_bytes_in_a_column_are_seen_and_read_when_it_is_named(folder, write, turns, png, container):
    if container == "jsonl":
        row = {"messages": turns("What?", "Red."), "img": "red.png"}
    else:
        row = {"messages": turns("What?", "Red."), "shown": {"bytes": png(size=(8, 6)), "path": None}}
    name = "img" if "img" in row else "shown"
    data = write(container, folder / "data", [row])
    (bad,) = read(data, images=folder)
    assert f"image_column: {name}" in bad.reason
    (sample,) = read(data, images=folder, image_column=name)
    assert [image.open().size for image in sample.images] == [(8, 6)]


def test_several_columns_are_taken_in_their_order(folder, write, turns):
    row = {"messages": turns("<image> or <image>?", "A"), "image_2": "below/blue.jpg", "image_1": "red.png", "n": 1}
    sample = read_row(write, folder, row, image_column=["image_1", "image_2"])
    assert [image.name for image in sample.images] == ["red.png", "below/blue.jpg"]
    assert sample.columns == {"n": 1}


def test_a_row_has_the_same_name_whatever_its_image_column(folder, write, turns):
    named = read_row(write, folder, {"messages": turns("Q", "A"), "img": "red.png"}, image_column="img")
    assert named.uid == read_row(write, folder, {"messages": turns("Q", "A"), "images": ["red.png"]}).uid


def test_columns_that_are_no_images_and_rows_that_have_theirs_pass(folder, write, turns):
    told = {"image_id": 7, "has_image": False, "source": "coco", "caption": "Save it as a.png now.", "img": None}
    sample = read_row(write, folder, {"messages": turns("What?", "Red.")} | told)
    assert isinstance(sample, Sample), sample
    web = {"url": "https://example.org/a.jpg"}
    assert isinstance(read_row(write, folder, {"messages": turns("Q", "A"), "images": ["red.png"]} | web), Sample)
    # who names the column has said that the others are none
    rows = [{"messages": turns("Q", "A"), "image": "red.png"}, {"messages": turns("Q", "A")} | web]
    first, second = read(write("json", folder / "rows.json", rows), image_column="image")
    assert (len(first.images), len(second.images)) == (1, 0)


@pytest.mark.parametrize(
    "question",
    [
        "Picture 1: <img>red.png</img>\nWhat?", "<image_1> What?", "What is in <|image_1|>?", "<IMAGE>\nWhat?",
        "<image_placeholder>What?", "What?\n<Image>", "<ImageHere>What?", "<|vision_start|><|image_pad|>What?",
        "[IMG] What?", "Look at <image 1>. What?", "<start_of_image>What?", "What is in <image/>?",
    ],
)  # fmt: skip
def test_another_tool_s_mark_in_a_text_row_is_an_error(folder, write, turns, question):
    found = read_row(write, folder, {"messages": turns(question, "Red.")})
    assert isinstance(found, BadRow)
    assert "image_column:" in found.reason
    assert "<image>" in found.reason


@pytest.mark.parametrize(
    "question",
    ['Why is <img src="a.png"> not shown?', "Use the <img> tag", "![alt](a.png)", "<Image source={a} /> in React?"],
)
def test_programs_about_images_are_texts(folder, write, turns, question):
    assert isinstance(read_row(write, folder, {"messages": turns(question, "<img>")}), Sample)


def test_an_image_beside_a_turn_s_text_is_an_error(folder, write):
    turns = [{"role": "user", "content": "What?", "images": ["red.png"]}, {"role": "assistant", "content": "Red."}]
    assert "an image under images" in read_row(write, folder, {"messages": turns}).reason


def test_an_image_column_that_no_row_has_is_an_error(folder, write, turns):
    data = write("json", folder / "row.json", [{"messages": turns("Q", "A"), "img": "red.png"}])
    for column in ("imgs", []):
        with pytest.raises(InputError, match="expected one of the columns img, messages"):
            read(data, image_column=column)
