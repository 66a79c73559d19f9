"""Data to measure on: rows as questions on one image, what they can't be, and hashes over what was asked."""

import io
import json
from base64 import b64encode

import pytest
from PIL import Image

from vfl.errors import InputError
from vfl.measure.config import MeasureConfig, check_metrics
from vfl.measure.question_pairs import AskedPair, judged
from vfl.measure.source import source_of
from vfl.metrics.result import cluster_of


@pytest.fixture
def rows(tmp_path):
    """Write rows as JSON lines beside two pictures, and read them as a source."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in "ab":
        Image.new("RGB", (20, 10), "red").save(folder / f"{name}.png")

    def read(*rows, **settings):
        path = folder / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return source_of(MeasureConfig(data=str(path), out=tmp_path / "out", **settings))

    return read


def row(question, answer, image="a.png", **more):
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"image": image, "conversations": turns, **more}


def test_rows_are_questions_on_their_image(rows):
    source = rows(row("Is it red?", "Yes", kind="colour"), row("How many?", "3", "b.png", kind="number"), column="kind")
    first, second = source.pairs
    assert source.kind == "questions"
    assert (first.question, first.answer, first.match, first.function) == ("Is it red?", "Yes", "yesno", "rows/colour")
    assert (second.match, second.images, second.size) == ("number", ["image"], (20, 10))
    assert second.path("image").name == "b.png"
    assert second.correct("three")
    assert not second.boxes
    assert source.counts() == {"rows/colour": 1, "rows/number": 1}


def test_the_hash_is_over_what_is_asked(rows, tmp_path):
    plain = rows(row("Is it red?", "Yes")).sha256()
    assert rows(row("Is it red?", "Yes")).sha256() == plain
    assert rows(row("Is it red?", "No")).sha256() != plain
    Image.new("RGB", (20, 10), "blue").save(tmp_path / "data" / "a.png")
    assert rows(row("Is it red?", "Yes")).sha256() != plain


def test_pictures_that_rows_hold_are_files_by_their_content(rows, tmp_path):
    """One picture in two rows is one picture, and what another run left in the folder is never taken for a row's."""

    def held(colour):
        file = io.BytesIO()
        Image.new("RGB", (20, 10), colour).save(file, "PNG")
        return {"image": {"base64": b64encode(file.getvalue()).decode()}}

    red, again, blue = rows(*(row("Which colour?", "red") | held(colour) for colour in ("red", "red", "blue"))).pairs
    assert cluster_of(red) == cluster_of(again) != cluster_of(blue)
    (green,) = rows(row("Which colour?", "green") | held("green")).pairs
    assert green.open("image").getpixel((0, 0)) == (0, 128, 0)


def test_rows_that_are_no_question_on_one_image_are_refused_or_left_out_by_name(rows):
    two = row("Both?", "yes") | {"image": ["a.png", "b.png"]}
    two["conversations"][0]["value"] = "<image><image> Both?"
    missing = row("Is it red?", "yes", "c.png")
    with pytest.raises(InputError, match=r"row.* 2.*2 images.*--on-bad-row skip"):
        rows(row("Is it red?", "yes"), two)
    source = rows(row("Is it red?", "yes"), two, missing, on_bad_row="skip")
    assert len(source.pairs) == 1
    assert ["2 images" in source.left_out[0], "c.png" in source.left_out[1]] == [True, True]
    with pytest.raises(InputError, match="no row that can be asked"):
        rows(two, on_bad_row="skip")


def test_only_so_many_of_a_group_and_only_some_groups(rows):
    questions = [row(f"Question {n}?", "yes", kind="ab"[n % 2]) for n in range(6)]
    assert rows(*questions, column="kind", pairs=2).counts() == {"rows/a": 2, "rows/b": 2}
    assert rows(*questions, column="kind", functions=["rows/b"]).counts() == {"rows/b": 3}
    with pytest.raises(InputError, match="no rows of rows/c"):
        rows(*questions, column="kind", functions=["rows/c"])


def test_choices_are_the_answers_of_all_rows(rows):
    source = rows(row("Which?", "B"), choices=("A", "B"))
    assert source.pairs[0].choices == ["A", "B"]
    assert source.pairs[0].correct("The answer is B.")
    with pytest.raises(InputError, match="'C' is none of the choices A, B"):
        rows(row("Which?", "C"), choices=("A", "B"))


def test_letters_are_those_that_the_question_lists(rows):
    """Chance is a half where two are listed, whatever other questions list."""
    (pair,) = rows(row("Which?\nA. a dog\nB. a cat", "A"), choices=("A", "B", "C")).pairs
    assert pair.letters == pair.choices == ["A", "B"]
    assert pair.by_logits
    assert not pair.lettered("text").by_logits
    assert not pair.correct("It is a cat")
    assert judged(pair, None).correct("A. a dog")
    assert rows(row("Which?\nA. a dog\nB. a cat", "A")).pairs[0].letters == ["A", "B"]


@pytest.mark.parametrize(
    ("columns", "settings"),
    [
        ({"boxes": [[2, 1, 12, 6]]}, {}),
        ({"boxes": {"image": [[2, 1, 12, 6]]}}, {}),
        ({"bbox": [2.0, 1.0, 10.0, 5.0], "segmentation": [[2, 1, 12, 1, 12, 6]], "area": 50}, {}),
        ({"bbox": [0.1, 0.1, 0.6, 0.6]}, {}),
        ({"bbox": [2, 1, 12, 6]}, {"box_format": "xyxy"}),
        ({"bbox": [0.1, 0.1, 0.5, 0.5]}, {"box_format": "relative_xywh"}),
        ({"gt_box": [2, 1, 12, 6], "other_box": [0, 0, 1, 1]}, {"box_column": "gt_box"}),
        ({"bbox": {"x": 2, "y": 1, "width": 10, "height": 5}}, {}),
        ({"boxes": [{"xmin": 2, "ymin": 1, "xmax": 12, "ymax": 6, "name": "dog"}]}, {}),
        ({"bbox": {"x": 0.1, "y": 0.1, "w": 0.5, "h": 0.5}}, {}),
        ({"bbox": "[2, 1, 10, 5]"}, {}),
        ({"boxes": [[100, 100, 600, 600]]}, {"box_format": "internvl"}),
        ({"bbox": "<|box_start|>(100,100),(600,600)<|box_end|>"}, {"box_format": "qwen2"}),
        ({"bbox_2d": [100, 100, 600, 600]}, {"box_format": "thousandths-json", "box_column": "bbox_2d"}),
        ({"box_2d": [100, 100, 600, 600]}, {"box_format": "gemini", "box_column": "box_2d"}),
        ({"bbox": "<loc0102><loc0102><loc0614><loc0614>"}, {"box_format": "paligemma"}),
        ({"bbox": [102, 102, 614, 614]}, {"box_format": "paligemma"}),
    ],
)
def test_a_box_is_the_same_however_a_row_writes_it(rows, columns, settings):
    source = rows(row("What is it?", "a dog", label=" dog ", **columns), row("Is it?", "yes"), **settings)
    first, second = source.pairs
    assert first.boxes["image"] == [pytest.approx([2, 1, 12, 6], abs=0.02)]
    assert (first.label, second.label, second.boxes) == ("dog", None, {})
    column = next(iter(columns))
    assert [column in note and "1 rows" in note for note in source.notes] == [True]
    assert judged(first, None).boxes_read_as == first.boxes_read_as


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({"bounding_box": [1, 1, 2, 2]}, {}, "bounding_box look like boxes"),
        ({"gtBoxes": "1,1,2,2"}, {}, "gtBoxes look like boxes"),
        ({"where": [1, 1, 2, 2]}, {}, "where look like boxes"),
        ({"segmentation": [[1, 1, 2, 2]]}, {}, "segmentation look like boxes"),
        ({"objects": {"bbox": [[1, 1, 2, 2]]}}, {}, r"objects\.bbox look like boxes"),
        ({"boxes": [[1, 1, 2, 2]], "bbox": [1, 1, 2, 2]}, {}, "boxes, bbox look like boxes"),
        ({"bbox": [100, 100, 600, 600]}, {}, "box_format what its numbers are .*qwen2"),
        ({"bbox": "(1,1),(2,2)"}, {}, "which box_format names"),
        ({"bbox": "(1,1),(2,2),(3,3),(4,4)"}, {"box_format": "qwen2"}, "expected one box as qwen2 writes it"),
        ({"bbox": [2000, 1, 2, 2]}, {"box_format": "qwen2"}, "expected one box as qwen2 writes it"),
        ({"bbox": {"x": 1, "y": 2}}, {}, "expected a box of four numbers"),
        ({"boxes": [[1, 1, 2, 2], [3, 3, 4, 4]], "label": ["dog", "cat"]}, {}, "expected the object's name"),
        ({"bbox": [1, 1, 2]}, {}, r"bbox holds \[1, 1, 2\]; expected a box of four numbers"),
        ({"bbox": [12, 1, 18, 6]}, {}, "no box inside the image of 20x10 pixels.*box_format"),
        ({"boxes": [[5, 1, 5, 6]]}, {}, "no box inside"),
        ({"bbox": [1, 1, 2, 2], "label": 3}, {}, "label holds 3; expected the object's name"),
        ({}, {"box_column": "gt"}, "box_column names 'gt'"),
        ({}, {"label_column": "name"}, "label_column names 'name'"),
    ],
)
def test_what_looks_like_a_box_is_never_ignored(rows, columns, settings, message):
    with pytest.raises(InputError, match=message):
        rows(row("What is it?", "a dog", **columns), **settings)


def test_boxes_are_left_alone_where_that_is_said_and_texts_are_none(rows):
    (pair,) = rows(row("What?", "a dog", gt_box=[1, 1, 2, 2]), box_column="none").pairs
    assert not pair.boxes
    (pair,) = rows(row("What?", "a dog", checkbox="ticked", inbox=[], label=3, bbox=None)).pairs
    assert (pair.boxes, pair.label) == ({}, None)


@pytest.mark.parametrize(
    ("answer", "settings", "box"),
    [
        ("[0.10, 0.10, 0.60, 0.60]", {}, "[2, 1, 12, 6]"),
        ("[2, 1, 12, 6]", {}, "[2, 1, 12, 6]"),
        ("(2,1),(12,6)", {}, "[2, 1, 12, 6]"),
        ("<box>(100,100),(600,600)</box>", {"box_format": "qwen2"}, "[2, 1, 12, 6]"),
        ('[{"bbox_2d": [100, 100, 600, 600], "label": "dog"}]', {"box_format": "thousandths-json"}, "[2, 1, 12, 6]"),
        ("<loc0102><loc0102><loc0614><loc0614>", {"box_format": "paligemma"}, "[2, 1, 12, 6]"),
    ],
)
def test_an_answer_that_is_a_box_is_compared_as_one(rows, answer, settings, box):
    """As LLaVA's grounding data has them: by words, no model would ever be right."""
    source = rows(row("Where is the dog?", answer, label="dog"), **settings)
    (pair,) = source.pairs
    assert (pair.match, pair.answer, pair.boxes["image"]) == (
        "box",
        box,
        [pytest.approx([2, 1, 12, 6], abs=0.02)],
    )
    assert pair.correct("[2, 1, 11, 6]")
    assert not pair.correct("[12, 1, 18, 6]")
    assert "the answers as" in source.notes[0]


def test_answers_that_hold_more_than_a_box_are_texts_and_boxes_must_lie_in_the_image(rows):
    texts = ["at [2, 1, 12, 6]", "1, 2, 3, 4", "[1, 2, 3]", "[2, 1, 12, 6] and a dog"]
    assert {pair.match for pair in rows(*(row("Where?", text) for text in texts)).pairs} == {"text"}
    (pair,) = rows(row("Which numbers?", "[2, 1, 12, 6]"), match="text").pairs
    assert pair.match == "text"
    for answer, message in (("[100, 100, 600, 600]", "the answer holds.*box_format"), ("<loc0102>" * 4, "paligemma")):
        with pytest.raises(InputError, match=message):
            rows(row("Where?", answer))


def test_a_row_has_choices_of_its_own(rows):
    listed = "Which?\nA. a dog\nB. a cat"
    animals = ["a dog", "a cat"]
    text, letter = rows(row("Which?", "a cat", choices=animals), row(listed, "B", choices=animals)).pairs
    assert (text.choices, letter.choices) == (animals, ["A", "B"])
    assert text.correct("It is a cat.")
    assert not text.correct("It is a dog.")
    (pair,) = rows(row(listed, "B", choices=animals), choices=("A", "B", "C")).pairs
    assert pair.letters == ["A", "B"]
    by_letter = ({"A": "a dog", "B": "a cat"}, {"label": ["A", "B"], "text": animals})
    told = rows(*(row(asked, "B", choices=choices) for asked in ("Which?", listed) for choices in by_letter)).pairs
    assert [(pair.answer, pair.choices) for pair in told] == [("a cat", animals)] * 2 + [("B", ["A", "B"])] * 2
    (number,) = rows(row("How many?", "2", choices=[1, 2])).pairs
    assert number.choices == ["1", "2"]
    for choices, asked, answer, message in (
        ({"A": "a dog", "B": "a cat"}, "Which?", "C", "'C' is a letter"),
        ({"A": "a dog", "B": "a dog"}, "Which?", "A", "expected a list of different texts"),
        ({"label": ["A"], "text": animals}, "Which?", "A", "expected a list of different texts"),
        (animals, "Which?", "B", "the question lists 0 letters"),
        (animals, "Which?", "a cow", "'a cow' is none of the choices"),
        ("a dog", "Which?", "a dog", "expected a list of different texts"),
        ([1, 1], "Which?", "1", "expected a list of different texts"),
    ):
        with pytest.raises(InputError, match=message):
            rows(row(asked, answer, choices=choices))


def test_annotations_without_questions_say_how_they_become_some(tmp_path):
    annotations = tmp_path / "instances.json"
    annotations.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    with pytest.raises(InputError, match="vfl probes make DIR --coco"):
        source_of(MeasureConfig(data=str(annotations), out=tmp_path / "out"))


def test_only_free_form_answers_are_judged(rows):
    class Yes:
        def right(self, question, expected, answer):
            return True

    text, number = (judged(pair, Yes()) for pair in rows(row("What?", "a cat"), row("How many?", "3")).pairs)
    assert isinstance(text, AskedPair)
    assert text.single
    assert text.path("image").is_file()
    assert text.correct("something else")
    assert not number.correct("4")


def test_generated_probes_and_idle_settings(tmp_path):
    source = source_of(MeasureConfig(out=tmp_path, data="micro", pairs=1, functions=("counting",)))
    assert source.counts() == {"counting": 1}
    assert source.pairs[0].images == ["image", "source_image", "control_image"]
    with pytest.raises(InputError, match="column was given, but micro is generated probes"):
        source_of(MeasureConfig(out=tmp_path, data="micro", column="kind"))
    suite = str(next((tmp_path / "probes").iterdir()))
    assert source_of(MeasureConfig(out=tmp_path, data=suite)).sha256() == source.sha256()
    with pytest.raises(InputError, match="seed was given"):
        source_of(MeasureConfig(out=tmp_path, data=suite, seed=3))
    with pytest.raises(InputError, match="no data at nowhere"):
        source_of(MeasureConfig(out=tmp_path, data="nowhere"))


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([], {}, "No metrics were named"),
        (["cosinus"], {}, "choose from"),
        (["cosine"], {"var": {}}, "var, not measured here"),
        (["cosine"], {"cosine": {"epsilon": 1}}, "no option epsilon; it takes eps"),
        (["cosine"], {"cosine": {"eps": "small"}}, "cosine.eps is 'small': input should be a valid number"),
        (["cosine"], {"cosine": {"eps": None}}, "cosine.eps is None"),
        (["drop"], {"drop": {"ks": 3}}, "drop.ks is 3"),
        (["var"], {"var": {"layers": [1]}}, r"var.layers is \[1\]"),
        (["knockout"], {"knockout": {"cuts": "object to last_token"}}, "knockout.cuts is 'object to last_token'"),
        (["knockout"], {"knockout": {"windows": {"all": 3}}}, "knockout.windows is {'all': 3}"),
        (["knockout"], {"knockout": {"cuts": []}}, "knockout.cuts names nothing"),
        (["functional"], {"functional": {"clusters": -1}}, "functional.clusters is -1: counts"),
        (
            ["token_ablation"],
            {"token_ablation": {"chosen": {"mine": [0, -1]}}},
            "counts, layers and seeds are 0 or more",
        ),
        (["token_ablation"], {"token_ablation": {"chosen": {"mine": 3}}}, "token_ablation.chosen is {'mine': 3}"),
    ],
)
def test_unknown_metrics_and_options_are_refused(names, options, message):
    with pytest.raises(InputError, match=message):
        check_metrics(names, options)


def test_options_are_what_metrics_take_however_they_come():
    check_metrics(["drop"], {"drop": {"ks": range(3), "tolerance": 0}})
    check_metrics(["var"], {"var": {"layers": [1, 2]}})
    check_metrics(
        ["token_ablation"], {"token_ablation": {"chosen": {"mine": [1, 2], "half": [[0, 0, 0.5, 1]]}, "images": None}}
    )
