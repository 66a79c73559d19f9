"""What the text alone gives: rows that need no image, and rows that the model does not look at yet."""

import numpy as np
import pytest
from fake_scores import FUNCTIONS, STATES, row, write_scores

from vfl.select.choose.classes import ClassConfig, create_view
from vfl.select.choose.profiles import UNREAD, find_clusters
from vfl.select.choose.text_alone import LEAST, text_alone
from vfl.select.shards.score_folder import database, open_scores

STILL = {f"js_{name}": 1e-4 for name in FUNCTIONS} | {"no_image_js": 1e-4}
MOVED = {f"js_{name}": 1e-3 for name in FUNCTIONS} | {"js_ocr": 0.3, "no_image_js": 0.3}


def rows_of(kind, count, start, answers, *, question=None, **columns):
    """Rows of one kind: every `question` th asks the same; answers in turn."""
    rng = np.random.default_rng(start)
    made = []
    for n in range(count):
        asked = n % question if question else n
        row_ = row(start + n, **columns)
        row_ |= {"uid": f"{kind}-{n}", "answer": answers(asked, n), "opening": f"{kind} {asked}"}
        row_ |= {"question_terms": [100 * len(kind), 100 * len(kind) + 1], "source": kind}
        made.append(row_ | {"image_state": rng.standard_normal(STATES).astype(np.float16)})
    return made


def classes_of(folder):
    scores = open_scores(folder)
    with database("1GB", 1) as connection:
        create_view(connection, scores, ClassConfig())
        find_clusters(connection, scores, by="words")
        profiles = connection.execute("SELECT source, profile, count(*) FROM classed JOIN profiled USING (position)"
                                      " GROUP BY ALL ORDER BY ALL").fetchall()  # fmt: skip
    return {(source, profile) for source, profile, _ in profiles}


def test_a_cluster_that_does_not_look_is_blind_only_if_the_text_gives_its_answers(tmp_path):
    rows = [
        # the answer stands in the question, and the model does not follow it yet
        *rows_of("say", 60, 0, lambda asked, n: f"word {asked}", question=6, solved=False, **STILL),
        # known without the image
        *rows_of("facts", 60, 100, lambda asked, n: f"fact {n}", no_image=True, **STILL),
        # a way of asking that the model does not know: the same question has many answers
        *rows_of("unknown", 60, 200, lambda asked, n: f"{n % 7}", question=3, solved=False, **STILL),
        # the model looks, and the same question still has one answer always
        *rows_of("determined", 60, 300, lambda asked, n: f"word {asked}", question=6, **MOVED),
        # the model looks and has to
        *rows_of("looks at it", 60, 400, lambda asked, n: f"{n % 7}", question=3, **MOVED),
        # one answer to everything: nothing says that the text decides it
        *rows_of("always the same", 60, 500, lambda asked, n: "cat", question=6, **MOVED),
    ]
    assert classes_of(write_scores(tmp_path / "s", rows)) == {
        ("say", "blind"),
        ("facts", "blind"),
        ("unknown", UNREAD),
        ("determined", "blind"),
        ("looks at it", "ocr"),
        ("always the same", "ocr"),
    }


@pytest.mark.parametrize("count", [LEAST - 1, LEAST])
def test_few_rows_with_the_same_question_say_nothing(tmp_path, count):
    rows = rows_of("say", count, 0, lambda asked, n: f"word {asked}", question=4, solved=False, **STILL)
    repeats = [made | {"uid": f"r{n}", "position": 500 + n} for n, made in enumerate(rows * 3)]
    scores = open_scores(write_scores(tmp_path / "s", [*rows, *repeats]))
    with database("1GB", 1) as connection:
        source = f"(SELECT * FROM {scores.table(connection)})"
        connection.execute(f"CREATE TABLE clustered AS SELECT position, 0 AS cluster FROM {source}")
        (alone,) = text_alone(connection, source).values()
    # repeats of a row are no further evidence
    assert (alone.known, alone.decided) == ((1.0, 1.0) if count == LEAST else (0.0, 0.0))
