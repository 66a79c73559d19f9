"""`check_suite`: every bad line at once, with its field; notes on what a suite lacks."""

import json
import shutil

import pytest

from vfl.errors import InputError
from vfl.probes.check import FEWEST, LISTED, check_suite
from vfl.probes.make import make
from vfl.probes.pair import read_suite
from vfl.probes.style import MICRO_STYLE


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "suite"
    make(folder, ["counting"], FEWEST, 0, MICRO_STYLE)
    return folder


@pytest.fixture
def suite(made, tmp_path):
    return shutil.copytree(made, tmp_path / "suite")


def rewrite(suite, change):
    """Change the suite's rows, {line: row}, in place."""
    file = suite / "probes.jsonl"
    rows = dict(enumerate(map(json.loads, file.read_text().splitlines()), 1))
    change(rows)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows.values()))


def test_a_good_suite_is_what_is_read_and_needs_no_notes(suite):
    assert check_suite(suite) == (read_suite(suite), [])


def test_every_bad_line_is_named_with_its_field(suite):
    def change(rows):
        del rows[2]["answer"]
        rows[4]["match"] = "nummer"
        rows[5]["image"] = "images/absent.png"
        rows[6]["question"] = 7
        rows[9]["id"] = rows[8]["id"]
        rows[10]["source_answer"] = "many"
        rows[11]["awnser"] = "3"

    rewrite(suite, change)
    with pytest.raises(InputError) as raised:
        check_suite(suite)
    first, *lines = str(raised.value).splitlines()
    assert first == f"{suite / 'probes.jsonl'}: 7 lines of {FEWEST} can't be used:"
    expected = {
        2: "'answer' is missing", 4: "match: ", 5: "image 'images/absent.png' does not exist", 6: "question: ",
        9: "already stands on line 8", 10: "source_answer 'many' cannot be read", 11: "unknown key 'awnser'",
    }  # fmt: skip
    assert len(lines) == len(expected)
    for line, (number, text) in zip(lines, expected.items(), strict=True):
        assert line.startswith(f"  line {number}: ")
        assert text in line


def test_a_suite_of_bad_lines_is_cut(tmp_path):
    (tmp_path / "probes.jsonl").write_text("{}\n" * (LISTED + 5))
    with pytest.raises(InputError, match="25 lines of 25") as raised:
        check_suite(tmp_path)
    assert str(raised.value).splitlines()[-1] == "  and 5 more"
    (tmp_path / "probes.jsonl").write_text("\n")
    with pytest.raises(InputError, match="holds no pairs"):
        check_suite(tmp_path)


def test_notes_say_what_would_make_it_tell_more(suite):
    def change(rows):
        del rows[3]["control_image"]
        rows[5] |= {key: rows[4][key] for key in ("image", "source_image", "question", "answer", "source_answer")}
        rows[6]["source_image"] = rows[6]["image"]
        del rows[7]

    rewrite(suite, change)
    pairs, notes = check_suite(suite)
    assert len(pairs) == FEWEST - 1
    assert len(notes) == 4
    text = "\n".join(notes)
    for part in (f"counting has {FEWEST - 1} pairs", "1 of 19 pairs have no control_image", "line 5: asks what line 4",
                 "line 6: image and source_image are the same picture"):  # fmt: skip
        assert part in text
