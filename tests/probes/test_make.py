"""Generated suites: the same bytes for the same seed, the first pairs of a larger suite those of a smaller one."""

import hashlib
from pathlib import Path

import pytest
from PIL import Image

from vfl.errors import InputError
from vfl.probes.functions import FUNCTIONS, PAPER_FUNCTIONS
from vfl.probes.make import drawn_pairs, make
from vfl.probes.pair import read_suite, suite_sha256
from vfl.probes.style import MICRO_STYLE, STYLES, Style, common_words, user_pictures

SMALL = Style(size=112)


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make(tmp_path / name, list(FUNCTIONS), pairs=3, seed=5, style=SMALL)
    make(tmp_path / "c", list(FUNCTIONS), pairs=3, seed=6, style=SMALL)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert suite_sha256(tmp_path / "a") == suite_sha256(tmp_path / "b") != suite_sha256(tmp_path / "c")


def test_more_pairs_or_functions_change_none_of_the_others(tmp_path: Path) -> None:
    few = contents_of_pairs(make(tmp_path / "few", ["ocr"], pairs=2, style=SMALL))
    many = contents_of_pairs(make(tmp_path / "many", ["counting", "ocr"], pairs=4, style=SMALL))
    assert len(many) == 8
    assert few.items() <= many.items()


def contents_of_pairs(pairs: list) -> dict[str, tuple]:
    return {pair.id: (pair.line(), *(pair.path(which).read_bytes() for which in pair.images)) for pair in pairs}


@pytest.mark.parametrize("style", [SMALL, MICRO_STYLE], ids=lambda style: style.name)
def test_a_written_suite_reads_back_as_drawn(tmp_path: Path, style: Style) -> None:
    functions = style.functions or tuple(FUNCTIONS)
    written = make(tmp_path, functions, pairs=3, seed=1, style=style)
    assert [pair.line() for pair in read_suite(tmp_path)] == [pair.line() for pair in written]
    for pair, drawn in zip(written, drawn_pairs(functions, 3, 1, style), strict=True):
        assert (pair.id, pair.answer, pair.source_answer) == (drawn.id, drawn.answer, drawn.source_answer)
        assert pair.open("image").tobytes() == drawn.image.tobytes()
        assert pair.correct(drawn.answer)
        assert pair.correct(drawn.source_answer, "source_image")
        assert not pair.correct(drawn.source_answer)
        assert not pair.changed(drawn.answer, drawn.answer)
        assert pair.changed(drawn.source_answer, drawn.answer)
        assert pair.followed_source(drawn.source_answer, drawn.source_answer)


@pytest.mark.parametrize("size", [64, 77, 336, 1000])
def test_any_size_can_be_drawn(size: int) -> None:
    for drawn in drawn_pairs(list(FUNCTIONS), 2, 0, Style(size=size)):
        assert drawn.image.size == drawn.source_image.size == (size, size)


@pytest.mark.parametrize(
    ("functions", "pairs", "style", "expected"),
    [
        (["conting"], 1, SMALL, "'conting'"),
        (["colour"], 1, MICRO_STYLE, "style 'micro' does not draw 'colour'"),
        ([], 1, SMALL, "got none"),
        (["ocr", "ocr"], 1, SMALL, "each function once"),
        (["ocr"], 0, SMALL, "pairs is 0"),
    ],
)
def test_what_cannot_be_made_is_refused(
    tmp_path: Path, functions: list[str], pairs: int, style: Style, expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        make(tmp_path / "suite", functions, pairs, style=style)
    assert not (tmp_path / "suite").exists()


def test_styles_refuse_what_they_cannot_draw() -> None:
    with pytest.raises(InputError, match="too small"):
        Style(size=20)
    with pytest.raises(InputError, match="dragon"):
        Style(objects=("cat", "dragon"))
    with pytest.raises(InputError, match="style micro"):
        MICRO_STYLE.resized(448)
    assert STYLES["standard"].resized(200).size == 200
    with pytest.raises(InputError, match="fonts needs at least two"):
        Style(fonts=("DejaVuSans",))
    with pytest.raises(InputError, match="max_objects is 9"):
        Style(max_objects=9)
    with pytest.raises(InputError, match="counts"):
        list(drawn_pairs(["counting"], 1, 0, Style(counts=(3,))))
    with pytest.raises(InputError, match="as many letters"):
        list(drawn_pairs(["ocr"], 1, 0, Style(words=("house",))))


def test_the_words_are_common_short_and_distinct() -> None:
    words = common_words()
    assert len(set(words)) == len(words) >= 300
    assert all(3 <= len(word) <= 8 and word.isascii() and word.islower() for word in words)
    assert all(sum(len(word) == length for word in words) >= 20 for length in range(3, 9))


def test_the_paper_has_four_functions() -> None:
    assert set(PAPER_FUNCTIONS) <= set(FUNCTIONS)
    assert len(PAPER_FUNCTIONS) == 4


def test_own_pictures_take_the_place_of_the_bundled_ones(tmp_path: Path) -> None:
    for name, colour in (("fire_truck.png", "red"), ("robot.jpg", "gray"), ("notes.txt", None)):
        if colour:
            Image.new("RGB", (60, 30), colour).save(tmp_path / name)
        else:
            (tmp_path / name).write_text("no picture")
    style = Style(size=160, object_folder=tmp_path)
    assert style.object_names() == ("fire truck", "robot")
    drawn = list(drawn_pairs(["recognition", "grounding", "relation"], 4, 0, style))
    assert {pair.label for pair in drawn} == {"fire truck", "robot"}
    for pair in drawn:
        x0, y0, x1, y1 = pair.boxes["image"][0]
        assert (x1 - x0) / (y1 - y0) == pytest.approx(2, abs=0.1)  # pictures keep their shape


def test_folders_of_too_few_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        user_pictures(tmp_path / "none")
    with pytest.raises(InputError, match="holds 0 pictures"):
        Style(object_folder=tmp_path, objects=("cat",))
    Image.new("RGB", (9, 9)).save(tmp_path / "fire_truck.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "fire truck.png")
    with pytest.raises(InputError, match="two pictures of 'fire truck'"):
        user_pictures(tmp_path)
    Image.new("RGBA", (9, 9)).save(tmp_path / "cat.png")
    (tmp_path / "fire_truck.png").write_bytes(b"no image")
    (tmp_path / "fire truck.png").unlink()
    style = Style(object_folder=tmp_path)
    with pytest.raises(InputError, match="every pixel is transparent"):
        style.sprite("cat")
    with pytest.raises(InputError, match="cannot be read"):
        style.sprite("fire truck")
