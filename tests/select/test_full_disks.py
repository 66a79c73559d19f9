"""No room, or no right to write: one line, nothing half-written, and the same command goes on when there is room."""

import io
import json
import resource
import tarfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import score_rows
from fake_scores import row, write_scores

import vfl
from vfl.errors import InputError
from vfl.select.report.page import write_selection_report
from vfl.select.score.run import score
from vfl.select.settings import ScoreConfig
from vfl.select.shards.score_folder import open_scores
from vfl.select.subset.write import FilterConfig, filter_scores


@contextmanager
def room_for(size):
    """Files of at most `size` bytes can be written; more fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def half_written(folder):
    return [path for path in folder.rglob("*") if path.name.startswith(".") or path.suffix == ".tmp"]


def test_scoring_goes_on_where_there_is_room_again(tmp_path):
    embedded = vfl.load()
    data = score_rows.write(tmp_path, score_rows.rows_of(tmp_path, 1))
    config = ScoreConfig(
        data=data, layers=score_rows.LAYERS, shard_rows=2, ablation="mean", out=tmp_path / "scores"
    )  # fmt: skip
    largest = 0
    for size in (0, 60, 800, 1_500, 4_000):
        with (
            room_for(size),
            pytest.raises(InputError, match=r"The disk of .*scores is full\. What was finished is kept"),
        ):
            score(config, vlm=embedded, progress=False)
        assert not half_written(tmp_path)
        assert not [*(tmp_path / "scores" / "claims").glob("*")]
        largest = max([largest, *(file.stat().st_size for file in (tmp_path / "scores").rglob("*") if file.is_file())])
        assert largest <= size
    score(config, vlm=embedded, progress=False)
    assert [row["position"] for row in score_rows.table(tmp_path / "scores")] == [0, 1, 2, 3]
    open_scores(tmp_path / "scores")


CONTAINERS = ["json", "jsonl", "jsonl.gz", "jsonl.zst", "parquet", "tar", "saved"]
ROOM = 1_000_000
"""Enough for what duckdb writes, and not for 20 rows of 200 kB that can't be packed well."""


@pytest.fixture(scope="module", params=CONTAINERS)
def scores(tmp_path_factory, request):
    """40 rows' scores, and their data in each container."""
    folder, rng = tmp_path_factory.mktemp("made"), np.random.default_rng(0)
    turns = [
        [{"role": "user", "content": "What? " + rng.bytes(100_000).hex()}, {"role": "assistant", "content": "That."}]
        for _ in range(40)
    ]
    data = write_rows(request.param, folder, [{"id": f"u{n:05}", "messages": turns[n]} for n in range(40)])
    rows = [row(n, kind="text") for n in range(40)]
    return write_scores(folder / "scores", rows, settings={"data": [str(data)]})


def write_rows(container, folder, rows):
    import datasets

    path, lines = folder / f"data.{container}", "\n".join(map(json.dumps, rows)).encode()
    if container == "json":
        path.write_text(json.dumps(rows))
    elif container == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif container == "saved":
        datasets.Dataset.from_list(rows).save_to_disk(str(path))
    elif container == "tar":
        with tarfile.open(path, "w") as archive:
            for n, one in enumerate(rows):
                member = tarfile.TarInfo(f"{n:04}.json")
                content = json.dumps(one).encode()
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    elif container == "jsonl":
        path.write_bytes(lines)
    else:
        codec = {"jsonl.gz": "gzip", "jsonl.zst": "zstd"}[container]
        with pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), codec) as stream:
            stream.write(lines)
    return path


def test_a_subset_appears_whole_or_not_at_all(scores, tmp_path):
    config = FilterConfig(scores=scores, budget="50%", policy="random", out=tmp_path / "subset")
    with room_for(ROOM), pytest.raises(InputError, match=r"The disk of .*subset is full\. Nothing was written there"):
        filter_scores(config)
    assert not [*tmp_path.iterdir()]
    assert filter_scores(config)["rows"] == 20


@pytest.mark.parametrize("scores", ["json"], indirect=True)
def test_a_full_disk_for_what_does_not_fit_in_memory(scores, tmp_path):
    with (
        room_for(200),
        pytest.raises(InputError, match=r"The disk of .* is full, where selecting puts what does not fit"),
    ):
        filter_scores(FilterConfig(scores=scores, budget="50%", policy="random", out=tmp_path / "subset"))
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("scores", ["json"], indirect=True)
def test_a_report_appears_whole_or_not_at_all(scores, tmp_path):
    with room_for(30_000), pytest.raises(InputError, match=r"The disk of .*report.html is full"):
        write_selection_report(scores, tmp_path / "report.html")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("scores", ["json"], indirect=True)
def test_places_where_nothing_may_be_written(scores, tmp_path):
    """Not even by a superuser, for whom rights are no obstacle."""
    nowhere = Path("/proc/run")
    with pytest.raises(InputError, match=r"/proc/run can't be written"):
        filter_scores(FilterConfig(scores=scores, budget=3, policy="random", out=nowhere / "subset"))
    with pytest.raises(InputError, match=r"/proc/run can't be written"):
        write_selection_report(scores, nowhere / "report.html")
    with pytest.raises(InputError, match="is a folder; name a file"):
        write_selection_report(scores, tmp_path)
    data = score_rows.write(tmp_path, score_rows.rows_of(tmp_path, 1))
    with pytest.raises(InputError, match=r"/proc/run.* can't be written"):
        score(ScoreConfig(data=data, layers=score_rows.LAYERS, out=nowhere), vlm=vfl.load(), progress=False)
