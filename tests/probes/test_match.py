"""When answers are the same, by match kind."""

import pytest

from vfl.probes.match import NUMBER_WORDS, iou, read, same


@pytest.mark.parametrize(
    "answer",
    ["HOUSE", "house", " House. ", '"HOUSE"', 'The text reads "HOUSE".', "It says: house!", "house house", "**HOUSE**"],
)
def test_a_wrapped_word_is_the_word(answer: str) -> None:
    assert same("text", answer, "HOUSE", candidates=("HOUSE", "MOUSE"))
    assert not same("text", answer, "MOUSE", candidates=("HOUSE", "MOUSE"))


@pytest.mark.parametrize("answer", ["HOUSES", "HOUS", "MOUSE", "H O U S E", "house or mouse", "", "?!", "warehouse"])
def test_another_word_is_not(answer: str) -> None:
    assert not same("text", answer, "HOUSE", candidates=("HOUSE", "MOUSE"))


def test_text_is_compared_by_words_whatever_the_script() -> None:
    assert same("text", "CAFÉ", "cafe\u0301")  # composed and decomposed
    assert same("text", "Straße", "STRASSE")
    assert same("text", "日本", "「日本」")
    assert not same("text", "कि", "की")  # vowel signs tell words apart
    assert same("text", "dark red", "It is dark red.", candidates=("red", "dark red"))
    assert not same("text", "red", "It is dark red.", candidates=("red", "dark red"))


def test_two_misread_words_are_the_same_only_if_equal() -> None:
    assert same("text", "The word is HOUSF", "the word is: housf", candidates=("HOUSE", "MOUSE"))
    assert not same("text", "HOUSF", "HOUZE", candidates=("HOUSE", "MOUSE"))


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("3", 3),
        ("There are 3 cubes.", 3),
        ("three", 3),
        ("Three cubes", 3),
        ("There are twenty-one balls", 21),
        ("TWENTY", 20),
        ("I count 12, not 13", 12),
        ("1,000", 1000),
        ("3D view: two", 2),
        ("none", 0),
        ("many", None),
        ("", None),
        ("someone", None),
        ("-2", -2),
        ("2.5", 2.5),
        ("**4**", 4),
    ],
)
def test_numbers(answer: str, number: float | None) -> None:
    assert read("number", answer) == number


def test_every_number_word_up_to_twenty_is_known() -> None:
    assert [NUMBER_WORDS[word] for word in ("zero", "one", "eleven", "nineteen", "twenty")] == [0, 1, 11, 19, 20]
    assert sorted(NUMBER_WORDS.values()) == list(range(100))
    assert all(read("number", word) == number for word, number in NUMBER_WORDS.items())


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("yes", "yes"),
        ("Yes, there is a cat.", "yes"),
        ("No", "no"),
        ("NO!", "no"),
        ("No. Yes would be wrong.", "no"),
        ("There is a cat", None),
        ("nothing", None),
        ("", None),
    ],
)
def test_yes_and_no_in_free_text(answer: str, value: str | None) -> None:
    assert read("yesno", answer) == value


def test_an_answer_that_cannot_be_read_is_the_same_as_none() -> None:
    for kind, bad in [("number", "many"), ("yesno", "perhaps"), ("box", "left"), ("point", "[1]"), ("text", "...")]:
        assert not same(kind, bad, bad, image_size=(10, 10))


def test_boxes_are_the_same_above_half_overlap() -> None:
    assert same("box", "[0, 0, 10, 10]", "[0, 0, 10, 6]")
    assert not same("box", "[0, 0, 10, 10]", "[0, 0, 10, 5]")  # exactly one half
    assert not same("box", "[0, 0, 10, 10]", "[10, 10, 0, 0]")
    assert read("box", "The box is [0, 0, 10, 10]") is None  # wrapping is the family's to read
    assert iou((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert iou((0, 0, 2, 2), (2, 0, 4, 2)) == 0


def test_points_are_the_same_inside_the_box_or_close_by() -> None:
    box = (10.0, 10.0, 60.0, 60.0)
    assert same("point", "[11, 11]", "[59, 59]", box=box, image_size=(100, 100))
    assert not same("point", "[59, 59]", "[61, 61]", box=box, image_size=(100, 100))
    assert same("point", "[80, 80]", "[84, 84]", box=box, image_size=(100, 100))  # neither inside: 5 % of 141 pixels
    assert not same("point", "[80, 80]", "[86, 86]", box=box, image_size=(100, 100))
    assert same("point", "[11, 11]", "[16, 16]", image_size=(100, 100))
    with pytest.raises(ValueError, match="image_size"):
        same("point", "[11, 11]", "[16, 16]")
