"""Data to measure on: rows as questions on one image, what they can't be, and hashes over what was asked."""

import json

import pytest
from PIL import Image

from vfl.errors import InputError
from vfl.measure.config import MeasureConfig, check_metrics
from vfl.measure.question_pairs import AskedPair, judged
from vfl.measure.source import source_of


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
    ],
)
def test_unknown_metrics_and_options_are_refused(names, options, message):
    with pytest.raises(InputError, match=message):
        check_metrics(names, options)
