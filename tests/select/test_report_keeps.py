"""What the report says of a subset: shares of answers and questions, what each stage took, what came close."""

import json
from itertools import pairwise

import pytest
from fake_scores import FUNCTIONS, row, write_scores
from PIL import Image

from vfl.select.choose.filtering import ChoiceConfig, choose
from vfl.select.report.keeps import chosen_again, kept, stages
from vfl.select.report.page import write_selection_report
from vfl.select.shards.score_folder import database, open_scores
from vfl.select.subset.write import FilterConfig, filter_scores

ROWS = 200


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Rows of two kinds of question; some repeat, and five have answers that the model finds very unlikely."""
    out = tmp_path_factory.mktemp("keeps")
    rows, data = [], []
    for n in range(ROWS):
        name, wrong = FUNCTIONS[n % 2], n % 40 == 3
        answer = ("yes" if n % 3 else "no") if n % 2 else str(n % 5)
        rows.append(
            row(n, drops={name: 0.5 + n / 1000}, logprobs={name: 1.0}, solved=n % 4 > 0, answer=answer,
                opening=("how many", "is there")[n % 2], question_terms=[n % 2], loss=9.0 if wrong else 0.5,
                text_hash=f"t{0 if n < 10 else n}", image_hash=f"{0 if n < 10 else n:016x}:0")
        )  # fmt: skip
        turns = [{"from": "human", "value": f"<image>\nQ{n}"}, {"from": "gpt", "value": answer}]
        data.append({"id": f"u{n:05}", "conversations": turns, "image": "seen.png"})
    Image.new("RGB", (8, 6), "red").save(out / "seen.png")
    (out / "data.json").write_text(json.dumps(data))
    settings = {"data": [str(out / "data.json")]}
    return open_scores(write_scores(out / "scores", rows, settings=settings))


@pytest.mark.parametrize("policy", ["balanced", "quota"])
def test_the_counts_are_those_of_all_and_of_the_chosen(scores, policy):
    with database() as connection:
        choose(connection, scores, ChoiceConfig(budget="30%", policy=policy))
        found = kept(connection)
        table = connection.execute(
            "SELECT answer, class, opening, solved, chosen.position IS NOT NULL FROM classed LEFT JOIN chosen"
            " USING (position)"
        ).fetchall()
    chosen = [one for one in table if one[4]]
    for said in found.answers:
        assert said.rows == sum(answer == said.text for answer, *_ in table)
        assert said.chosen == sum(answer == said.text for answer, *_ in chosen)
        assert said.share == pytest.approx(100 * said.rows / ROWS)
        assert said.chosen_share == pytest.approx(100 * said.chosen / len(chosen))
    for name, openings in found.openings.items():
        assert sum(said.share for said in openings) == pytest.approx(100)
        for said in openings:
            assert said.rows == sum((cls, opening) == (name, said.text) for _, cls, opening, *_ in table)
    assert found.unsolved == pytest.approx(100 * sum(not solved for *_, solved, _ in table) / ROWS)
    assert found.chosen_unsolved == pytest.approx(100 * sum(not solved for *_, solved, _ in chosen) / len(chosen))


def test_next_in_line_is_what_a_larger_budget_takes_first(scores):
    with database() as connection:
        again = chosen_again(connection, scores, ChoiceConfig(budget=40, policy="top"))
        before = {place for (place,) in connection.execute("SELECT position FROM chosen").fetchall()}
        choose(connection, scores, ChoiceConfig(budget=40 + len(again.next_in_line), policy="top"))
        after = {place for (place,) in connection.execute("SELECT position FROM chosen").fetchall()}
    assert set(again.next_in_line) == after - before
    assert again.suspects == []  # the policy looks for none


def test_each_stage_and_the_rows_behind_it_are_on_the_page(scores, tmp_path):
    subset = filter_scores(FilterConfig(scores=scores.path, budget="30%", out=tmp_path / "subset"))
    with database() as connection:
        again = chosen_again(connection, scores, ChoiceConfig(budget="30%"))
    assert again.suspects
    assert all(place % 40 == 3 for place in again.suspects)
    found = stages(scores, subset, again)
    assert found[0] == ("rows of the data", None, ROWS)
    assert ("repeats", 9, ROWS - 9) in found
    assert "answer is probably wrong" in [stage for stage, *_ in found]
    for (_, _, before), (_, taken, left) in pairwise(found):
        assert before - taken == left
    assert found[-1][2] == subset["rows"] == 60
    page = write_selection_report(scores.path, tmp_path / "r.html", subset=tmp_path / "subset").read_text()
    for said in ("What each stage took away", "The commonest answers", "How the questions of each class begin",
                 "next in line", "probably wrong answers", "how many"):  # fmt: skip
        assert said in page
