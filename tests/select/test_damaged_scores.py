"""A folder of scores that lost files, or has damaged or other ones: filter says so, and scoring mends it."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
import score_rows
import torch
from safetensors.torch import save

import vfl
from vfl.errors import InputError
from vfl.select.score.run import score
from vfl.select.score.worker import read_mean
from vfl.select.settings import ScoreConfig
from vfl.select.shards.part_files import digest_of
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
    "errors.parquet is missing": lambda scores: (scores / "errors.parquet").unlink(),
    "errors.parquet is cut off": lambda scores: cut(scores / "errors.parquet"),
    "can't be read": lambda scores: cut(scores / "manifest.json"),
    "has no manifest.json": lambda scores: (scores / "manifest.json").unlink(),
}


CASES = [(reason, "kept") for reason in DAMAGES]
CASES += [
    ("can't be read", "lost"),
    ("can't be read", "cut"),
    ("has no manifest.json", "lost"),
    ("part-000001.parquet is cut off", "cut"),
]


@pytest.mark.parametrize(("reason", "plan"), CASES)
def test_filter_says_what_is_wrong_and_scoring_mends_it(scores, whole, mended, reason, plan):
    DAMAGES[reason](scores)
    if plan == "lost":
        (scores / "plan.json").unlink()
    elif plan == "cut":
        cut(scores / "plan.json")
    with pytest.raises(InputError) as caught:
        open_scores(scores)
    assert reason in str(caught.value)
    assert "Run the same `vfl select score` again" in str(caught.value)
    mended(scores)


@pytest.fixture
def mended(whole, config, embedded):
    """mended(scores): scored again, the folder is as it was."""

    def check(scores):
        score(config(scores), vlm=embedded, progress=False)
        open_scores(scores)
        score_rows.assert_alike(score_rows.table(scores), score_rows.table(whole))
        assert score_rows.errors(scores) == score_rows.errors(whole)
        counts = [json.loads((folder / "manifest.json").read_text())["counts"] for folder in (scores, whole)]
        assert counts[0] == counts[1]

    return check


def test_damage_inside_a_column_is_mended(scores, mended):
    """Its footer is whole; each page has a checksum."""
    part = scores / "parts" / "part-000001.parquet"
    column = pq.read_metadata(part).row_group(0).column(7)
    data = bytearray(part.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 1] ^= 0xFF
    part.write_bytes(data)
    open_scores(scores)
    mended(scores)


def test_parts_without_a_plan_are_not_taken_for_another_run_s(scores, config, embedded):
    """Whose settings are other ones is told by each part, where neither plan nor manifest are left to tell it."""
    for name in ("plan.json", "manifest.json"):
        (scores / name).unlink()
    other = config(scores).model_copy(update={"layers": score_rows.LAYERS | {"ocr": [7]}})
    with pytest.raises(InputError, match="is of another run; move it away"):
        score(other, vlm=embedded, progress=False)


def test_a_damaged_mean_is_made_anew(tmp_path, config, embedded, caplog):
    scores = tmp_path / "scores"
    settings = config(scores).model_copy(update={"ablation": "mean", "mean_images": 4})
    score(settings, vlm=embedded, progress=False)
    file, before = scores / "mean.safetensors", score_rows.table(scores)
    content, run = file.read_bytes(), digest_of(json.loads((scores / "plan.json").read_text()))
    assert read_mean(file, run) is not None
    assert read_mean(file, "0123") is None
    for damaged in (
        b"",
        save({"mean": torch.ones(4)}, {"of": run}),
        content[:-1] + bytes([content[-1] ^ 1]),
        content[:-40],
    ):
        file.write_bytes(damaged)
        assert read_mean(file, run) is None
    (scores / "parts" / "part-000001.parquet").unlink()
    caplog.clear()
    score(settings, vlm=embedded, progress=False)
    assert "it is made anew" in caplog.text
    assert file.read_bytes() == content
    score_rows.assert_alike(score_rows.table(scores), before)


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
