"""Rows of a run's table, filtered; only of tables in the folder."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vfl.errors import InputError
from vfl.serve import samples
from vfl.serve.folder import runs
from vfl.serve.pages import samples_page
from vfl.serve.samples import Condition, filter_samples


@pytest.fixture
def tables(root):
    """Answers of a map's pairs, and scores in two parts."""
    answers = {"pair_id": ["p0", "p1", "p2"], "first": [1, 2, 3], "changed": [True, False, None]}
    pq.write_table(pa.table(answers), root / "maps" / "one" / "pairs.parquet")
    scores = root / "scores"
    (scores / "parts").mkdir(parents=True)
    (scores / "manifest.json").write_text("{}")
    for number, drops in enumerate(([0.1, 0.5], [None, 0.9])):
        table = {"uid": [f"{number}a", f"{number}B <b>"], "drop_ocr": drops, "state": [[1.0], [2.0]]}
        pq.write_table(pa.table(table), scores / "parts" / f"part-{number}.parquet")
    return root


def uids(found):
    return [row[found.columns.index("uid")] for row in found.rows]


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        ([], ["0a", "0B <b>", "1a", "1B <b>"]),
        ([("drop_ocr", "≥", "0.5")], ["0B <b>", "1B <b>"]),
        ([("drop_ocr", "≤", "0.5")], ["0a", "0B <b>"]),
        ([("uid", "contains", "b <B")], ["0B <b>", "1B <b>"]),
        ([("uid", "contains", "b"), ("drop_ocr", "≠", "0.9")], ["0B <b>"]),
        ([("uid", "=", "0")], []),
    ],
)
def test_all_conditions_hold_for_the_rows_that_are_found(tables, conditions, found):
    result = filter_samples(tables, "scores", [Condition(*condition) for condition in conditions])
    assert uids(result) == found
    assert (result.found, result.of) == (len(found), 4)
    assert result.columns == ["uid", "drop_ocr"]  # a list is nothing to filter by


def test_a_map_s_answers_are_filtered_by_their_kinds(tables):
    result = filter_samples(tables, "maps/one", [Condition("changed", "=", "true"), Condition("first", "≤", "2")])
    assert result.rows == [["p0", "1", "True"]]


def test_no_more_rows_than_a_page_holds(tables, monkeypatch):
    monkeypatch.setattr(samples, "SHOWN", 1)
    result = filter_samples(tables, "scores", [])
    assert (len(result.rows), result.found) == (1, 4)
    assert "the first 1 are shown" in samples_page("scores", [], result)


@pytest.mark.parametrize(
    ("run", "condition", "message"),
    [
        ("scores", ("drop_orc", "≥", "0.5"), "no column 'drop_orc'.*did you mean drop_ocr"),
        ("scores", ("state", "=", "1"), "no column 'state'"),
        ("scores", ("drop_ocr", "≥", "much"), "of its kind, double; got 'much'"),
        ("scores", ("drop_ocr", "contains", "0"), "drop_ocr holds no text"),
        ("scores", ("uid", "like", "0"), "'like' is no way to compare"),
        ("a", ("uid", "=", "0"), "a has no table of samples"),
        ("../outside", ("uid", "=", "0"), "There is no"),
    ],
)
def test_what_can_not_be_filtered_is_an_error(tables, run, condition, message):
    with pytest.raises(InputError, match=message):
        filter_samples(tables, run, [Condition(*condition)])


def test_a_part_that_is_a_link_out_of_the_folder_is_not_read(tables, tmp_path):
    pq.write_table(pa.table({"uid": ["secret"]}), tmp_path / "outside" / "part.parquet")
    (tables / "scores" / "parts" / "part-9.parquet").symlink_to(tmp_path / "outside" / "part.parquet")
    with pytest.raises(InputError, match="There is no"):
        filter_samples(tables, "scores", [])


def test_a_table_that_is_none_is_an_error(tables):
    (tables / "maps" / "one" / "pairs.parquet").write_bytes(b"PAR1, or not")
    with pytest.raises(InputError, match="The table of maps/one can't be read"):
        filter_samples(tables, "maps/one", [])


def test_the_runs_say_which_have_rows_and_values_are_written_as_text(tables):
    assert [(run.place, run.kind) for run in runs(tables) if run.table] == [("maps/one", "map"), ("scores", "scores")]
    page = samples_page("scores", [], filter_samples(tables, "scores", []))
    assert "0B &lt;b&gt;" in page
    assert "<b>" not in page
