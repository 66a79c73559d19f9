"""A suite on disk: what is written is read back, and every bad line is refused by file and line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vfl.errors import InputError
from vfl.probes.pair import PROBES_FILE, DrawnPair, Pair, read_suite, suite_sha256, write_suite


def drawn(name: str = "a", **changes: Any) -> DrawnPair:
    images = [Image.new("RGB", (20, 12), colour) for colour in ("red", "blue", "pink")]
    values: dict[str, Any] = {
        "id": name,
        "function": "counting",
        "question": "How many?",
        "answer": "3",
        "source_answer": "4",
        "match": "number",
        "image": images[0],
        "source_image": images[1],
        "control_image": images[2],
    }
    return DrawnPair(**(values | changes))


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    write_suite(tmp_path / "suite", [drawn("a"), drawn("b", control_image=None, function="my own", label="Käse")])
    return tmp_path / "suite"


def edit(suite: Path, line: int = 1, **changes: Any) -> None:
    """Change keys of one line; None removes the key."""
    path = suite / PROBES_FILE
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    lines[line].update(changes)
    lines[line] = {key: value for key, value in lines[line].items() if value is not None}
    path.write_text("\n".join(json.dumps(data) for data in lines), encoding="utf-8")


def refusal(suite: Path) -> str:
    """The message of the refusal, checked to name the file and the second line."""
    with pytest.raises(InputError) as caught:
        read_suite(suite)
    assert f"{suite / PROBES_FILE}, line 2: " in str(caught.value)
    return str(caught.value)


def test_written_pairs_are_read_back(suite: Path) -> None:
    first, second = read_suite(suite)
    assert (first.id, first.answer, first.source_answer, first.match) == ("a", "3", "4", "number")
    assert first.images == ["image", "source_image", "control_image"]
    assert second.images == ["image", "source_image"]
    assert (second.function, second.label) == ("my own", "Käse")
    assert first.size == second.size == (20, 12)
    assert first.open("image").getpixel((0, 0)) == (255, 0, 0)
    assert first.path("image").is_absolute()
    with pytest.raises(InputError, match="no control_image"):
        second.path("control_image")


def test_writing_what_was_read_gives_the_same_suite(suite: Path, tmp_path: Path) -> None:
    again = [
        DrawnPair(
            **{key: getattr(pair, key) for key in ("id", "function", "question", "answer", "source_answer", "match")},
            **{which: pair.open(which) for which in pair.images},
            label=pair.label,
        )
        for pair in read_suite(suite)
    ]
    pairs = write_suite(tmp_path / "again", again)
    assert [pair.line() for pair in pairs] == [pair.line() for pair in read_suite(suite)]
    assert suite_sha256(tmp_path / "again") == suite_sha256(suite)


def test_the_hash_follows_the_content_and_not_the_place(suite: Path, tmp_path: Path) -> None:
    before = suite_sha256(suite)
    moved = tmp_path / "elsewhere" / "moved"
    shutil.copytree(suite, moved)
    assert suite_sha256(moved) == before
    edit(moved, question="How many are there?")
    assert suite_sha256(moved) != before
    Image.new("RGB", (20, 12), "green").save(suite / "images" / "a.png")
    assert suite_sha256(suite) != before


def test_the_order_of_keys_and_empty_lines_do_not_matter(suite: Path) -> None:
    before = suite_sha256(suite)
    lines = [json.loads(line) for line in (suite / PROBES_FILE).read_text().splitlines()]
    (suite / PROBES_FILE).write_text("\n\n".join(json.dumps(dict(reversed(line.items()))) for line in lines) + "\n\n")
    assert suite_sha256(suite) == before


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"answre": "3"}, "unknown key 'answre'"),
        ({"question": None}, "key 'question' is missing"),
        ({"question": ""}, "question"),
        ({"question": 3}, "question: Input should be a valid string, got 3"),
        ({"match": "fuzzy"}, "match: Input should be 'text', 'number', 'yesno', 'box', 'point' or 'letter'"),
        ({"answer": "many"}, "answer 'many' cannot be read as match \"number\""),
        ({"source_answer": "three"}, 'are the same under match "number"'),
        ({"match": "box", "answer": "[1, 2, 3]"}, 'expected "[x0, y0, x1, y1]"'),
        ({"match": "yesno"}, 'expected "yes" or "no"'),
        ({"match": "point", "answer": "[5, 5]", "source_answer": "[6, 5]"}, 'are the same under match "point"'),
        ({"id": "a"}, "id 'a' already stands on line 1"),
        ({"id": "a\nb"}, "id"),
        ({"function": " "}, "function"),
        ({"image": "images/none.png"}, "image 'images/none.png' does not exist"),
        ({"image": "images"}, "image 'images' does not exist"),
        ({"source_image": "../outside.png"}, "source_image '../outside.png' leaves the folder"),
        ({"source_image": "images/../../outside.png"}, "leaves the folder"),
        ({"control_image": "images/none.png"}, "control_image 'images/none.png' does not exist"),
        ({"image": "a\0b"}, "is no file name"),
        ({"boxes": {"image": [[1, 2, 3]]}}, "boxes.image.0"),
        ({"boxes": {"image": [[1, 2, 30, 4]]}}, "boxes.image"),
        ({"boxes": {"picture": []}}, "boxes"),
        ({"choices": "3 or 4"}, "choices"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(suite: Path, changes: dict[str, Any], expected: str) -> None:
    Image.new("RGB", (20, 12)).save(suite.parent / "outside.png")
    edit(suite, **changes)
    assert expected in refusal(suite)


@pytest.mark.parametrize("line", ["{", "[]", "3", '{"id": "b"', "null"])
def test_a_line_that_is_no_object_is_refused(suite: Path, line: str) -> None:
    path = suite / PROBES_FILE
    path.write_text(path.read_text().splitlines()[0] + "\n" + line)
    refusal(suite)


def test_absolute_paths_are_refused_even_into_the_folder(suite: Path) -> None:
    edit(suite, image=str(suite.resolve() / "images" / "a.png"))
    assert "leaves the folder" in refusal(suite)


def test_links_out_of_the_folder_are_refused(suite: Path) -> None:
    Image.new("RGB", (20, 12)).save(suite.parent / "outside.png")
    (suite / "link.png").symlink_to(suite.parent / "outside.png")
    edit(suite, image="link.png")
    assert "leaves the folder" in refusal(suite)
    (suite / "folder").symlink_to(suite.parent)
    edit(suite, image="folder/outside.png")
    assert "leaves the folder" in refusal(suite)


def test_a_link_to_the_whole_suite_is_fine(suite: Path) -> None:
    link = suite.parent / "link"
    link.symlink_to(suite)
    assert suite_sha256(link) == suite_sha256(suite)


def test_corrupt_images_are_refused(suite: Path) -> None:
    image = suite / "images" / "b.png"
    whole = Image.effect_noise((64, 64), 80).convert("RGB")
    whole.save(image)
    for content in (b"", b"no image", image.read_bytes()[:-2000]):
        image.write_bytes(content)
        assert "cannot be read" in refusal(suite)
    whole.save(suite / "images" / "b.jpg")
    (suite / "images" / "b.jpg").write_bytes((suite / "images" / "b.jpg").read_bytes()[:-500])
    edit(suite, image="images/b.jpg")
    assert "cannot be read" in refusal(suite)


def test_unequal_sizes_are_refused(suite: Path) -> None:
    Image.new("RGB", (20, 13)).save(suite / "images" / "b.source.png")
    assert "image 20x12, source_image 20x13" in refusal(suite)
    Image.new("RGB", (20, 13)).save(suite / "images" / "other.png")
    Image.new("RGB", (20, 12)).save(suite / "images" / "b.source.png")
    edit(suite, control_image="images/other.png")
    assert "control_image 20x13" in refusal(suite)


def test_folders_without_a_suite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no probes\.jsonl"):
        read_suite(tmp_path / "none")
    (tmp_path / PROBES_FILE).write_text("\n\n")
    with pytest.raises(InputError, match="holds no pairs"):
        read_suite(tmp_path)
    (tmp_path / PROBES_FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        read_suite(tmp_path)


def test_a_suite_is_never_overwritten(suite: Path) -> None:
    before = suite_sha256(suite)
    with pytest.raises(InputError, match="exists already"):
        write_suite(suite, [drawn("c")])
    assert suite_sha256(suite) == before


def test_an_interrupted_write_leaves_no_suite(tmp_path: Path) -> None:
    def broken() -> Any:
        yield drawn("a")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_suite(tmp_path, broken())
    assert not (tmp_path / PROBES_FILE).exists()


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".a", "a b", "ä"])
def test_ids_that_cannot_name_a_file_are_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot name an image file"):
        write_suite(tmp_path, [drawn(name)])


def test_transparency_shows_white(suite: Path) -> None:
    Image.new("RGBA", (20, 12), (255, 0, 0, 0)).save(suite / "images" / "b.png")
    assert read_suite(suite)[1].open("image").getpixel((0, 0)) == (255, 255, 255)


def test_sizes_are_those_of_the_upright_picture(suite: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    turned = Image.new("RGB", (12, 20), "red")
    for name in ("b.jpg", "b.source.jpg"):
        turned.save(suite / "images" / name, exif=exif)
    edit(suite, image="images/b.jpg", source_image="images/b.source.jpg")
    pair = read_suite(suite)[1]
    assert pair.size == pair.open("image").size == (20, 12)
    edit(suite, source_image="images/b.source.png")
    assert read_suite(suite)[1].size == (20, 12)


def test_answers_are_judged_by_the_pairs_own_rule(suite: Path) -> None:
    pair = read_suite(suite)[0]
    assert pair.correct("There are three.")
    assert pair.correct("3", "control_image")
    assert pair.correct("four", "source_image")
    assert not pair.correct("4")
    assert not pair.changed("three", "3 cubes")
    assert pair.changed("many", "many")
    assert pair.followed_source("4 cubes", "four")
    assert not pair.followed_source("many", "many")


def test_points_count_inside_the_box_of_their_own_image(suite: Path) -> None:
    edit(
        suite,
        match="point",
        answer="[5, 5]",
        source_answer="[15, 5]",
        boxes={"image": [[0, 0, 9, 9]], "source_image": [[11, 0, 20, 9]]},
    )
    pair = read_suite(suite)[1]
    assert pair.correct("[8, 8]")
    assert not pair.correct("[11, 8]")
    assert pair.correct("[19, 1]", "source_image")
    assert pair.followed_source("[12, 1]", "[19, 8]")
    assert not pair.followed_source("[8, 1]", "[12, 8]")


def test_pairs_are_values(suite: Path) -> None:
    pair = read_suite(suite)[0]
    with pytest.raises(ValueError, match="frozen"):
        pair.answer = "5"  # type: ignore[misc]
    assert Pair.model_validate_json(pair.line()).line() == pair.line()
