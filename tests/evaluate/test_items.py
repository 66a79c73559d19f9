"""What is asked, and what counts as right."""

import json
from dataclasses import replace

import pytest
import tiny

from vfl.data import read
from vfl.errors import InputError
from vfl.evaluate.items import LONGEST, items_of_data, items_of_probes
from vfl.evaluate.sources import DataSet, items_of_set, suite_of
from vfl.probes.make import make
from vfl.probes.style import MICRO_STYLE


@pytest.fixture(scope="module")
def vlm(loaded):
    return loaded("qwen2_5_vl")


def turns(answer, question="how many?", image=False):
    return [
        {"role": "user", "content": ("<image>" if image else "") + question},
        {"role": "assistant", "content": answer},
    ]


@pytest.fixture
def data(tmp_path):
    """Write rows as a messages file and return what reads it."""

    def write(*rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def test_places_of_a_row_are_in_pixels_and_in_one_image(data, tmp_path):
    tiny.picture(seed=1).save(tmp_path / "a.png")
    row = {"messages": turns("[8, 8, 40, 40]", image=True), "images": ["a.png"]}
    (box,) = items_of_data(read(data(row)), match="box")
    assert [box.correct(text) for text in ("[10, 8, 40, 40]", "[8, 8, 20, 20]", "8")] == [True, False, False]
    (point,) = items_of_data(read(data(row)), match="point")
    assert [point.correct(text, (200, 100)) for text in ("[9, 39]", "[50, 50]")] == [True, False]
    (near,) = items_of_data(read(data(row | {"messages": turns("[8, 8]", image=True)})), match="point")
    assert [near.correct(text, (200, 100)) for text in ("[12, 12]", "[50, 50]")] == [True, False]
    with pytest.raises(InputError, match="a box is a place in one image, and the row has 0"):
        items_of_data(read(data({"messages": turns("[8, 8, 40, 40]")})), match="box")
    with pytest.raises(InputError, match="in pixels of the file"):
        items_of_data(read(data(row | {"messages": turns("3", image=True)})), match="box")


def test_probes_ask_the_target_and_other_images_on_request(vlm, tmp_path):
    pairs = make(tmp_path / "suite", ("counting", "grounding"), pairs=2, seed=3, style=MICRO_STYLE)
    items = items_of_probes(vlm, pairs)
    assert [item.id for item in items] == [pair.id for pair in pairs]
    assert [item.group for item in items] == ["counting", "counting", "grounding", "grounding"]
    for item, pair in zip(items, pairs, strict=True):
        assert item.images[0]().size == pair.size
        assert item.correct(pair.answer)
        assert not item.correct(pair.source_answer)
    both = items_of_probes(vlm, pairs, ("image", "source_image"))
    assert len({item.id for item in both}) == 2 * len(pairs)
    assert all(item.correct(item.expected) for item in both)
    # the question of a box carries the family's instruction
    assert "box" in json.dumps(items[-1].messages)


@pytest.mark.parametrize(
    ("expected", "kind", "right", "wrong"),
    [
        ("3", "number", "There are three cubes.", "4"),
        ("three", "number", "3", "two"),
        ("1,000.", "number", "1000", "1"),
        ("-2", "number", "-2", "2"),
        ("Yes.", "yesno", "yes, there is", "no"),
        ("No", "yesno", "no", "yes"),
        ("Dark red", "text", "dark  RED.", "red"),
        ("3 cats", "text", "3 cats", "3"),
        ("3,4", "text", "3,4", "3"),
        ("A", "text", "a.", "A cat"),
        ("no cat", "text", "No cat!", "no"),
        ("?", "exact", " ? ", "!"),
    ],
)
def test_the_right_answer_says_how_answers_are_compared(data, expected, kind, right, wrong):
    (item,) = items_of_data(read(data({"messages": turns(expected)})))
    assert item.match == kind
    assert item.correct(right)
    assert not item.correct(wrong)


def test_a_letter_that_the_question_lists_is_a_choice(data):
    (item,) = items_of_data(read(data({"messages": turns("A", "Which is it?\nA. a dog\nB. a cat")})))
    assert item.match == "letter"
    assert item.correct("A. a dog")
    assert not item.correct("It is a cat")


def test_a_match_can_be_asked_for(data):
    path = data({"messages": turns("3")})
    (item,) = items_of_data(read(path), match="exact")
    assert item.correct("3")
    assert not item.correct("three")
    with pytest.raises(InputError, match=r"'3' can't be read as 'yesno'"):
        items_of_data(read(path), match="yesno")


def test_earlier_turns_are_the_context(data):
    rows = [{"role": "system", "content": "Be short."}, *turns("2"), *turns("4", "and now?")]
    (item,) = items_of_data(read(data({"messages": rows})))
    assert [message["role"] for message in item.messages] == ["system", "user", "assistant", "user"]
    assert item.expected == "4"


def test_groups_are_the_set_or_a_column_in_it(data):
    path = data({"messages": turns("2"), "task": "sum"}, {"messages": turns("4"), "task": 7})
    assert [item.group for item in items_of_data(read(path), name="maths")] == ["maths", "maths"]
    assert [item.group for item in items_of_data(read(path), "task", name="maths")] == ["maths/sum", "maths/7"]
    assert len({item.id for item in items_of_data(read(path), name="maths")}) == 2
    with pytest.raises(InputError, match=r"no column 'kind' to group by; it has: task"):
        items_of_data(read(path), "kind")


def test_long_answers_have_room(data):
    path = data({"messages": turns("a")}, {"messages": turns("word " * 10)}, {"messages": turns("word " * 1000)})
    bounds = [item.max_new_tokens for item in items_of_data(read(path))]
    assert bounds == [16, 64, LONGEST]
    assert [item.max_new_tokens for item in items_of_data(read(path), max_new_tokens=5)] == [5, 5, 5]


def test_rows_that_end_without_an_answer_are_refused(data):
    (sample,) = read(data({"messages": turns("2")}))
    with pytest.raises(InputError, match=r"line 1.*got user"):
        items_of_data([replace(sample, messages=sample.messages[:1])])
    empty = {"role": "assistant", "content": [{"type": "text", "text": " "}]}
    with pytest.raises(InputError, match="empty"):
        items_of_data([replace(sample, messages=(sample.messages[0], empty))])


def test_bad_rows_stop_or_are_left_out_and_told(data, tmp_path):
    tiny.picture().save(tmp_path / "whole.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    good = {"messages": turns("2", image=True), "images": ["whole.png"]}
    path = data(good, {"messages": turns("2", image=True), "images": ["broken.png"]}, {"messages": []}, good)
    with pytest.raises(InputError, match=r"'cats'.*broken\.png.*on_bad_row: skip"):
        items_of_set("cats", DataSet(path=path))
    items, left_out = items_of_set("cats", DataSet(path=path, on_bad_row="skip"))
    assert (len(items), len(left_out)) == (2, 2)
    assert len(items_of_set("cats", DataSet(path=path, rows=1))[0]) == 1


def test_generated_suites_are_made_once(tmp_path):
    first = suite_of("micro", tmp_path, functions=("counting",), pairs=2, seed=5)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    assert suite_of("micro", tmp_path, functions=("counting",), pairs=2, seed=5) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == written
    folder = str(first[0].folder)
    assert suite_of(folder, tmp_path / "unused") == first
    with pytest.raises(InputError, match="no pairs for ocr; it has counting"):
        suite_of(folder, tmp_path, functions=("ocr",))
