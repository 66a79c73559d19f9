"""A folder of scores that lost files, or has damaged or other ones: filter says so, and scoring mends it."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
import score_rows

import vfl
from vfl.errors import InputError
from vfl.select.score.run import score
from vfl.select.settings import ScoreConfig
from vfl.select.shards.score_folder import open_scores


@pytest.fixture(scope="module")
def embedded():
    return vfl.load()


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """config(out) for 12 rows in parts of 4, one of them without its image."""
    folder = tmp_path_factory.mktemp("data")
    rows = score_rows.rows_of(folder, 3)
    rows[7]["image"] = "images/nowhere.png"
    data = score_rows.write(folder, rows)
    return lambda out: ScoreConfig(
        data=data, layers=score_rows.LAYERS, shard_rows=4, on_bad_row="skip", out=out
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(config, embedded, tmp_path_factory):
    return score(config(tmp_path_factory.mktemp("whole") / "scores"), vlm=embedded, progress=False)


@pytest.fixture
def scores(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "scores")


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


DAMAGES = {
    "part-000001.parquet is missing": lambda scores: (scores / "parts" / "part-000001.parquet").unlink(),
    "part-000001.parquet is cut off": lambda scores: cut(scores / "parts" / "part-000001.parquet"),
    "part-000002.parquet is cut off": lambda scores: (scores / "parts" / "part-000002.parquet").write_bytes(b""),
    "part-000001.parquet holds other rows": lambda scores: shutil.copy(
        scores / "parts" / "part-000000.parquet", scores / "parts" / "part-000001.parquet"
    ),
    "can't be read": lambda scores: cut(scores / "manifest.json"),
    "has no manifest.json": lambda scores: (scores / "manifest.json").unlink(),
}


@pytest.mark.parametrize("reason", DAMAGES)
@pytest.mark.parametrize("plan", ["kept", "lost"])
def test_filter_says_what_is_wrong_and_scoring_mends_it(scores, whole, config, embedded, reason, plan):
    DAMAGES[reason](scores)
    if plan == "lost":
        (scores / "plan.json").unlink()
    with pytest.raises(InputError) as caught:
        open_scores(scores)
    assert reason in str(caught.value)
    if plan == "lost" and reason == "can't be read":
        with pytest.raises(InputError, match="--overwrite"):
            score(config(scores), vlm=embedded, progress=False)
        return
    score(config(scores), vlm=embedded, progress=False)
    open_scores(scores)
    score_rows.assert_alike(score_rows.table(scores), score_rows.table(whole))
    assert score_rows.errors(scores) == score_rows.errors(whole)
    counts = [json.loads((folder / "manifest.json").read_text())["counts"] for folder in (scores, whole)]
    assert counts[0] == counts[1]


def test_lost_errors_are_found_again(scores, whole, config, embedded):
    (scores / "errors.parquet").unlink()
    score(config(scores), vlm=embedded, progress=False)
    assert score_rows.errors(scores) == score_rows.errors(whole)


def test_files_of_another_run_are_named(scores, config, embedded):
    shutil.copy(scores / "parts" / "part-000000.parquet", scores / "parts" / "more.parquet")
    with pytest.raises(InputError, match=r"more\.parquet is no part of this run"):
        open_scores(scores)
    with pytest.raises(InputError, match=r"more\.parquet is no part of this run; move it away"):
        score(config(scores), vlm=embedded, progress=False)


def test_parts_of_another_version_are_scored_again_with_what_is_missing(scores, whole, config, embedded, caplog):
    """Else the parts would have different columns."""
    older = scores / "parts" / "part-000000.parquet"
    pq.write_table(pq.read_table(older).drop_columns(["no_image_token_drops"]), older)
    (scores / "parts" / "part-000002.parquet").unlink()
    score(config(scores), vlm=embedded, progress=False)
    assert "part-000000.parquet was written by another version" in caplog.text
    score_rows.assert_alike(score_rows.table(scores), score_rows.table(whole))
