"""Where rows begin: reading from there gives the rows that reading all gives, and reads no others."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vfl.data import read
from vfl.select.shards.row_index import indexing, open_index


def rows_of(count):
    """Rows with and without ids, equal ones, bad ones, and texts of several bytes a letter."""
    for n in range(count):
        turns = [{"role": "user", "content": f"Größe {n % 7}? 漢字" * 3}, {"role": "assistant", "content": "ß"}]
        row = {"messages": turns if n % 11 else [], "note": ["x" * (n % 40)]}
        yield row | ({"id": f"row{n % 50}"} if n % 3 else {})


def written(container, folder, count=4_400):
    path, rows = folder / f"data.{container}", list(rows_of(count))
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    if container == "json":
        path.write_text("\ufeff[\r\n" + ",\r\n".join(lines) + "]", encoding="utf-8", newline="")
    elif container == "pretty.json":
        path.write_text(json.dumps({"data": rows}, indent=1, ensure_ascii=False), encoding="utf-8")
    elif container == "objects.json":
        path.write_text("\n".join(json.dumps(row, indent=2) for row in rows), encoding="utf-8")
    elif container == "jsonl":
        lines[40] = "{broken"
        path.write_text("\ufeff" + "\r\n\n".join(lines), encoding="utf-8", newline="")
    elif container == "parquet":
        table = pa.Table.from_pylist([row | {"messages": row["messages"] or None} for row in rows])
        pq.write_table(table, path, row_group_size=700)
    elif container == "saved":
        import datasets

        datasets.Dataset.from_list(rows).save_to_disk(str(path))
    else:
        assert container == "jsonl.gz"
        with pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), "gzip") as stream:
            stream.write("\n".join(lines).encode())
    return path


def index_of(data, out):
    with indexing(out / "rows.parquet", read(data), lambda: ["aa", "bb"]) as rows:
        every = list(rows)
    return every, open_index(out / "rows.parquet", len(every), ["aa", "bb"])


@pytest.mark.parametrize("container", ["json", "pretty.json", "objects.json", "jsonl", "parquet", "saved"])
def test_reading_begins_at_any_row(tmp_path, container):
    every, index = index_of(written(container, tmp_path), tmp_path)
    for first in (0, 1, 699, 700, 4_095, 4_096, len(every) - 1):
        found = list(islice(read(tmp_path / f"data.{container}", start=index.start(first)), 900))
        assert found == every[first : first + 900]


def test_several_files_follow_each_other(tmp_path):
    data = [written("jsonl", tmp_path, 300), written("parquet", tmp_path, 300), written("json", tmp_path, 300)]
    every, index = index_of(data, tmp_path)
    for first in (0, 299, 300, 450, 899):
        assert list(read(data, start=index.start(first))) == every[first:]


def test_there_is_none_where_reading_cannot_begin_anywhere_or_of_other_data(tmp_path):
    _, index = index_of(written("jsonl.gz", tmp_path, 100), tmp_path)
    assert index is None
    every, index = index_of(written("jsonl", tmp_path, 100), tmp_path)
    assert index is not None
    path = tmp_path / "rows.parquet"
    assert open_index(path, len(every), ["other"]) is None
    assert open_index(path, len(every) + 1, ["aa", "bb"]) is None
    path.write_bytes(path.read_bytes()[:-9])
    assert open_index(path, len(every), ["aa", "bb"]) is None


def read_bytes():
    return int(next(line.split()[1] for line in Path("/proc/self/io").read_text().splitlines() if "rchar" in line))


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs /proc")
@pytest.mark.parametrize("container", ["json", "jsonl", "parquet"])
def test_rows_of_others_are_not_read(tmp_path, container):
    path = tmp_path / f"data.{container}"
    rng = np.random.default_rng(0)  # what can't be packed
    turns = [[{"role": "user", "content": rng.bytes(500).hex()}] for _ in range(6_000)]
    rows = [{"id": f"{n}", "messages": json.dumps(turns[n])} for n in range(6_000)]
    if container == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=500)
    else:
        lines = map(json.dumps, rows)
        path.write_text("[" + ",".join(lines) + "]" if container == "json" else "\n".join(lines))
    every, index = index_of(path, tmp_path)
    before = read_bytes()
    found = list(islice(read(path, start=index.start(5_000)), 100))
    assert read_bytes() - before < path.stat().st_size / 4
    assert [row.uid for row in found] == [row.uid for row in every[5_000:5_100]]
