"""Which answers are probably wrong: unlikely ones beside like rows, and those that the image speaks against."""

import pytest
from fake_scores import row, write_scores

from vfl.select.choose.classes import ClassConfig, create_view
from vfl.select.choose.profiles import find_clusters
from vfl.select.choose.suspects import MOST, MOST_AGAINST, find_suspects
from vfl.select.shards.score_folder import database, open_scores

ROWS, WRONG = 100, 10


def suspects_of(folder, rows):
    scores = open_scores(write_scores(folder, rows))
    with database("1GB", 1) as connection:
        create_view(connection, scores, ClassConfig())
        find_clusters(connection, scores)
        count = find_suspects(connection)
        told = connection.execute("SELECT uid FROM classed SEMI JOIN suspect USING (position) ORDER BY uid").fetchall()
    assert count == len(told)
    return [uid for (uid,) in told]


def half_read(wrong=WRONG, **changed):
    """No answer is right as a whole; the image makes right ones likelier and wrong ones less likely."""
    rows = []
    for n in range(ROWS):
        given = {"loss": 3.0 + n / ROWS, "no_image_logprob_drop": 1.5, "no_image_accuracy": 0.2, "solved": False}
        if n < wrong:
            given |= {"loss": 7.0 + n / ROWS, "no_image_logprob_drop": -2.0}
        rows.append(row(n, uid=f"{'wrong' if n < wrong else 'right'}-{n:02}", **(given | changed)))
    return rows


def test_where_no_answer_is_right_yet_the_image_tells_the_wrong_ones(tmp_path):
    assert suspects_of(tmp_path / "s", half_read()) == [f"wrong-{n:02}" for n in range(WRONG)]


@pytest.mark.parametrize(
    "changed",
    [
        {"no_image_accuracy": 0.45},  # the image sets few tokens right: 0.5 with it
        {"no_image_logprob_drop": -2.0},  # it speaks against all answers: the model reads something else
        {"loss": 3.0},  # what it speaks against is as likely as the others
    ],
)
def test_where_the_image_helps_nothing_it_tells_nothing(tmp_path, changed):
    assert suspects_of(tmp_path / "s", half_read(**changed)) == []


def test_more_than_a_quarter_are_no_mistakes_alone(tmp_path):
    found = suspects_of(tmp_path / "s", half_read(wrong=40))
    assert len(found) == MOST_AGAINST * ROWS
    assert all(uid.startswith("wrong") for uid in found)


def test_an_unlikely_answer_beside_like_ones(tmp_path):
    """Where the model answers, the loss alone tells."""
    rows = [row(n, loss=8.0 + n if n < 5 else 0.1 + n / 1000, uid=f"u{n:02}", answer="yes") for n in range(ROWS)]
    assert suspects_of(tmp_path / "few", rows) == [f"u{n:02}" for n in range(5)]
    many = [row(n, loss=8.0 + n if n < 30 else 0.1 + n / 1000, uid=f"u{n:02}", answer="yes") for n in range(ROWS)]
    assert len(suspects_of(tmp_path / "many", many)) == MOST * ROWS
