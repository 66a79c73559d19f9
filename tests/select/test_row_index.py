"""Where rows begin: reading from there gives the rows that reading all gives, and reads no others."""

import io
import json
import tarfile
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vfl.data import hashing
from vfl.data.hashing import Hashes
from vfl.data.reading import open_data
from vfl.data.uids import Named
from vfl.select.shards import row_index
from vfl.select.shards.row_index import open_index, write_index


def rows_of(count):
    """Rows with and without ids, equal ones, bad ones, and texts of several bytes a letter."""
    for n in range(count):
        turns = [{"role": "user", "content": f"Größe {n % 7}? 漢字" * 3}, {"role": "assistant", "content": "ß"}]
        row = {"messages": turns if n % 11 else [], "note": ["x" * (n % 40)]}
        yield row | ({"id": f"row{n % 50}"} if n % 3 else {})


def written(container, folder, count=300):
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
        pq.write_table(table, path, row_group_size=70)
    elif container == "saved":
        import datasets

        datasets.Dataset.from_list(rows).save_to_disk(str(path))
    elif container.startswith("tar"):
        with tarfile.open(path, "w:gz" if container == "tar.gz" else "w") as archive:
            for n, line in enumerate(lines):
                for name, data in ((f"{'long/' * (n % 50)}{n}.json", line.encode()), (f"{n}.cls", b"passed over")):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    else:
        packing = {"jsonl.gz": "gzip", "jsonl.zst": "zstd"}[container]
        with pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), packing) as stream:
            stream.write("\n".join(lines).encode())
    return path


def index_of(data, out, hashes=None):
    opened = open_data(data)
    write_index(out / "rows.parquet", opened, hashes or Hashes(), lambda: ["aa", "bb"])
    every = list(opened.rows())
    return every, open_index(out / "rows.parquet", len(every), ["aa", "bb"])


def rows_from(data, index, first, count=None):
    place, uids = index.start(first)
    return list(islice(open_data(data).rows_from(place, Named(uids)), count))


CONTAINERS = [
    "json",
    "pretty.json",
    "objects.json",
    "jsonl",
    "jsonl.gz",
    "jsonl.zst",
    "parquet",
    "saved",
    "tar",
    "tar.gz",
]


@pytest.mark.parametrize("container", CONTAINERS)
def test_reading_begins_at_any_row_and_the_first_one_hashes_the_file(tmp_path, container, monkeypatch):
    monkeypatch.setattr(row_index, "CHUNK", 128)
    data, hashes = written(container, tmp_path), Hashes()
    every, index = index_of(data, tmp_path, hashes)
    for first in (0, 1, 69, 70, 127, 128, len(every) - 1):
        assert rows_from(data, index, first, 150) == every[first : first + 150]
    if data.is_file():
        assert hashes.of(data) == sha256(data.read_bytes()).hexdigest()


def test_row_groups_that_are_too_large_to_keep_are_read_twice(tmp_path, monkeypatch):
    data, hashes = written("parquet", tmp_path), Hashes()
    whole, _ = index_of(data, tmp_path)
    monkeypatch.setattr(hashing, "MOST_KEPT", 2_000)
    every, _ = index_of(data, tmp_path, hashes)
    assert every == whole
    assert hashes.of(data) == sha256(data.read_bytes()).hexdigest()


def test_several_files_follow_each_other(tmp_path):
    data = [written(container, tmp_path, 90) for container in ("jsonl.gz", "parquet", "json")]
    every, index = index_of(data, tmp_path)
    for first in (0, 89, 90, 130, 269):
        assert rows_from(data, index, first) == every[first:]


def test_an_index_of_other_data_or_a_broken_one_is_none(tmp_path):
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
@pytest.mark.parametrize("container", ["json", "jsonl", "parquet", "tar"])
def test_bytes_are_read_once_for_all_and_once_more_by_who_scores_them(tmp_path, container):
    path = tmp_path / f"data.{container}"
    rng = np.random.default_rng(0)  # what can't be packed
    turns = [[{"role": "user", "content": rng.bytes(1_000).hex()}] for _ in range(1_500)]
    rows = [{"id": f"{n}", "messages": json.dumps(turns[n])} for n in range(1_500)]
    if container == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=50)
    elif container == "tar":
        with tarfile.open(path, "w") as archive:
            for row in rows:
                member, data = tarfile.TarInfo(f"{row['id']}.json"), json.dumps(row).encode()
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    else:
        lines = map(json.dumps, rows)
        path.write_text("[" + ",".join(lines) + "]" if container == "json" else "\n".join(lines))
    size, hashes = path.stat().st_size, Hashes()
    before = read_bytes()
    data = open_data(path)
    write_index(tmp_path / "rows.parquet", data, hashes, lambda: [hashes.of(path)])
    assert read_bytes() - before < 1.3 * size  # the notes and the head of the file are read too
    index = open_index(tmp_path / "rows.parquet", 1_500, [sha256(path.read_bytes()).hexdigest()])
    before = read_bytes()
    found = rows_from(path, index, 1_200, 30)
    assert read_bytes() - before < size / 4
    assert [row.uid for row in found] == [str(n) for n in range(1_200, 1_230)]
