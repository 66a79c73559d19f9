"""Memory does not grow with the data: twenty times the rows, the same peak."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

READ = """
import sys
from vfl.data import Sample, read

def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key))

anonymous = 0
for path in sys.argv[1:]:
    count = 0
    for row in read(path):
        assert isinstance(row, Sample), row
        count += 1
        if count % 50 == 0:
            anonymous = max(anonymous, status("RssAnon"))
    print(count, status("VmHWM"), anonymous)
"""
"""Counts the rows of each file; the process's peak so far, and the most anonymous memory in between, in kB."""


def rows(number, image):
    for i in range(number):
        mark = "<image>\n" if image or i % 10 == 0 else ""
        words = f"question {i} " + "word " * 40
        turns = [{"from": "human", "value": mark + words}, {"from": "gpt", "value": "answer " * 10}]
        yield {"id": str(i // 2 if i % 4 else i), "image": image, "conversations": turns}


def struct(png, i):
    return {"bytes": png + i.to_bytes(4, "big") * 150, "path": None}


def write_json(path, number, png):
    with path.open("w") as handle:
        handle.write("[")
        for i, row in enumerate(rows(number, "image.png")):
            handle.write(",\n" * bool(i) + json.dumps(row))
        handle.write("]")


def write_jsonl(path, number, png):
    with path.open("w") as handle:
        for row in rows(number, "image.png"):
            handle.write(json.dumps(row) + "\n")


def write_parquet(path, number, png):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([row | {"image": struct(png, i)} for i, row in enumerate(rows(number, "image"))])
    pq.write_table(table, path, row_group_size=500)  # so that a thousand rows fill the reader's buffers, too


def write_saved(path, number, png):
    import datasets

    made = [row | {"image": struct(png, i)} for i, row in enumerate(rows(number, "image"))]
    datasets.Dataset.from_list(made).save_to_disk(path)


WRITERS = {"json": write_json, "jsonl": write_jsonl, "parquet": write_parquet, "saved": write_saved}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("container", [*WRITERS, "webdataset"])
def test_peak_memory_of_1k_and_20k_rows_is_within_10_percent(tmp_path, png, write_tar, container):
    (tmp_path / "image.png").write_bytes(png())
    sizes = (1_000, 20_000)
    paths = [tmp_path / f"data-{number}" for number in sizes]
    for number, path in zip(sizes, paths, strict=True):
        if container == "webdataset":
            images = ({"png": png()} if i % 10 == 0 else {} for i in range(number))
            texts = ({"json": json.dumps(row | {"id": None}).encode()} for row in rows(number, None))
            write_tar(path, ((f"{i}", text | image) for i, (text, image) in enumerate(zip(texts, images, strict=True))))
        else:
            WRITERS[container](path, number, png())
    done = subprocess.run([sys.executable, "-c", READ, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counts, peaks, anonymous = zip(*(map(int, line.split()) for line in done.stdout.splitlines()), strict=True)
    assert counts == sizes
    if container == "saved":  # it is mapped: what was read stays as pages that the system takes back when it needs them
        peaks = anonymous
    assert peaks[1] <= 1.1 * peaks[0], peaks


def test_a_large_row_group_is_not_read_whole(tmp_path, png):
    """Rows come a few at a time even where all rows stand in one group: three times the group, the same peak."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from vfl.data import read

    peaks = []
    for number in (3_000, 9_000):
        images = [{"bytes": png() + i.to_bytes(4, "big") * 2_000, "path": None} for i in range(number)]  # 8 kB each
        table = pa.Table.from_pylist([row | {"image": images[i]} for i, row in enumerate(rows(number, "image"))])
        pq.write_table(table, tmp_path / "data.parquet", row_group_size=number)
        del table, images
        pool = pa.default_memory_pool()
        before, peak = pool.bytes_allocated(), 0
        for count, _ in enumerate(read(tmp_path / "data.parquet")):
            if count % 50 == 0:
                peak = max(peak, pool.bytes_allocated() - before)
        peaks.append(peak)
    assert peaks[1] <= 1.1 * peaks[0], peaks
