"""What a subset keeps of the data's answers is told, and a lost answer is named."""

import pytest
from fake_scores import row, write_scores

from vfl.io.config import validated
from vfl.select.choose.coverage import coverage, little_answered, lost_answers
from vfl.select.choose.filtering import ChoiceConfig, choose
from vfl.select.shards.score_folder import database, open_scores


def coverage_of(folder, **settings):
    config = validated(ChoiceConfig, {"budget": "50%", **settings}, source="test")
    with database("1GB", 1) as connection:
        choose(connection, open_scores(folder), config)
        found = coverage(connection)
        return found, lost_answers(connection, found)


def write(folder):
    """Half "yes" and half "no", of which only "yes" loses anything."""
    rows = [row(n, drops={"ocr": 1.0} if n % 2 else {}, solved=bool(n % 4)) for n in range(200)]
    return write_scores(folder, [made | {"answer": "yes" if n % 2 else "no"} for n, made in enumerate(rows)])


def test_a_lost_answer_is_named(tmp_path):
    found, lost = coverage_of(write(tmp_path / "s"), policy="top")
    assert {one["text"]: (one["rows"], one["chosen"]) for one in found["answers"]} == {
        "yes": (100, 100),
        "no": (100, 0),
    }
    assert len(lost) == 1
    assert "'no'" in lost[0]
    assert found["unsolved"] == {"data": 0.25, "subset": 0.0}


def test_nothing_is_said_where_nothing_is_lost(tmp_path):
    found, lost = coverage_of(write(tmp_path / "s"), policy="random")
    assert not lost
    assert sum(one["chosen"] for one in found["answers"]) == found["chosen"] == 100
    assert [one["text"] for one in found["openings"]] == ["what is there"]


@pytest.mark.parametrize(("solved", "tokens", "told"), [(0.2, 4, True), (0.5, 4, False), (0.2, 60, False)])
def test_a_base_that_answers_little_is_named(tmp_path, solved, tokens, told):
    """Long answers are right as a whole with no model, and say nothing of what it knows."""
    rows = [row(n, solved=n < 100 * solved, answer_tokens=tokens) for n in range(100)] + [row(100, kind="text")]
    folder = write_scores(tmp_path / "s", rows)
    with database("1GB", 1) as connection:
        choose(connection, open_scores(folder), validated(ChoiceConfig, {"budget": "50%"}, source="test"))
        said = little_answered(connection)
    assert bool(said) == told
    assert all("answers 20 % of the rows with short answers" in one for one in said)
