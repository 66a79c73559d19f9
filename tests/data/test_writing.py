"""A part of the rows in the format that went in: every container, every kind, stored values untouched."""

import gzip
import json
import random
import tarfile

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vfl.data import Sample, read, writearrow
from vfl.data.llamafactory import entry
from vfl.data.writearrow import select_rows
from vfl.data.writing import flags, write_part
from vfl.errors import InputError

KINDS = ("messages", "prompt_completion", "preference", "llava", "sharegpt")
CONTAINERS = ("json", "jsonl", "parquet", "saved", "webdataset")
NAMES = {"json": "d.json", "jsonl": "d.jsonl", "parquet": "d.parquet", "saved": "d", "webdataset": "d.tar"}


def rows_of(kind, number=23):
    for n in range(number):
        ask, answer = f"<image>\nQuestion {n}?", f"Antwort {n} – ü"
        turns = [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]
        old = [{"from": "human", "value": ask}, {"from": "gpt", "value": answer}]
        yield {
            "messages": {"messages": turns, "images": ["red.png"]},
            "prompt_completion": {"prompt": ask, "completion": answer, "images": ["red.png"]},
            "preference": {"prompt": ask, "chosen": answer, "rejected": "no", "images": ["red.png"]},
            "llava": {"id": str(n // 2), "image": "below/blue.jpg", "conversations": old},
            "sharegpt": {"conversations": old, "images": ["red.png"], "system": "Be brief."},
        }[kind] | {"unread": [{"deep": n}], "score": n / 7}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_kept_rows_come_back_as_they_were(folder, write, container, kind):
    source = write(container, folder / NAMES[container], list(rows_of(kind)))
    everything = list(read(source, images=folder, keep_rows=True))
    wanted = [row.uid for row in everything if random.Random(row.uid).random() < 0.4]
    out = folder / "out"
    (written,) = write_part(source, flags(read(source, images=folder), iter(wanted)), out)
    assert written == (out if container == "saved" else out / NAMES[container])
    again = list(read(written, images=folder, keep_rows=True))
    kept = [row for row in everything if row.uid in wanted]
    assert 0 < len(again) == len(kept) < len(everything)
    assert [row.row for row in again] == [row.row for row in kept]
    assert [row.messages for row in again] == [row.messages for row in kept]
    assert not list(out.rglob("*.tmp"))


def test_lines_are_copied_byte_by_byte(folder):
    lines = [
        b'{"messages": [{"role":"user","content":"a"}, {"role":"assistant","content":"b\\u00e4"}], "x": 1.50}',
        b"no json",
    ]
    path = folder / "d.jsonl"
    bom = b"\xef\xbb\xbf"
    path.write_bytes(bom + lines[0] + b"\r\n\r\n" + lines[1] + b"\n" + lines[0])
    for keep, kept in (([1, 0, 1], lines[0] + b"\r\n" + lines[0]), ([0, 1, 0], lines[1] + b"\n")):
        write_part(path, map(bool, keep), folder / "out")
        assert (folder / "out" / "d.jsonl").read_bytes() == bom + kept


@pytest.mark.parametrize("frame", [(b"[", b"]"), (b'\xef\xbb\xbf{ "data" : [', b"]}"), (b"", b"")])
def test_rows_of_a_json_file_keep_their_own_text(folder, frame):
    """Numbers, escapes, keys that stand twice, and spaces are none of this tool's business."""
    turns = b'"messages": [{"role":"user","content":"a"},\r\n {"role":"assistant","content":"b\\u00e4\\/"}]'
    rows = [b'{\n "x":1.50, "x": 1e400, "y": 123456789012345678901.0, ' + turns + b' ,"n": %d}' % n for n in range(5)]
    path = folder / "d.json"
    path.write_bytes(frame[0] + (b",\n" if frame[1] else b"\n").join(rows) + frame[1])
    assert len(list(read(path))) == 5
    write_part(path, iter([True, False, False, True, True]), folder / "out")
    found = (folder / "out" / "d.json").read_bytes()
    assert found.startswith(frame[0])
    assert [row in found for row in rows] == [True, False, False, True, True]
    assert [sample.columns["n"] for sample in read(folder / "out" / "d.json")] == [0, 3, 4]


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_packed_files_stay_packed(folder, ending):
    lines = [json.dumps(row).encode() + b"\n" for row in rows_of("messages", 9)]
    path = folder / f"d.jsonl.{ending}"
    with pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), {"gz": "gzip", "zst": "zstd"}[ending]) as stream:
        stream.write(b"".join(lines))
    uids = [row.uid for row in read(path)]
    for n in range(2):
        write_part(path, flags(read(path), iter(uids[::2])), folder / f"out{n}")
    first, second = ((folder / f"out{n}" / path.name).read_bytes() for n in range(2))
    assert first == second
    assert len(list(read(folder / "out0" / path.name, images=folder))) == 5
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cut off"):
        list(read(path, format="messages"))


def test_parquet_keeps_types_metadata_images_and_compression(folder, png):
    features = {"info": {"features": {"image": {"_type": "Image"}}}}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    turn = pa.list_(pa.struct([("role", pa.large_string()), ("content", pa.string())]))
    schema = pa.schema(
        [
            ("image", image),
            ("messages", turn),
            ("label", pa.dictionary(pa.int8(), pa.string())),
            ("at", pa.timestamp("us")),
        ],
        metadata={"huggingface": json.dumps(features)},
    )
    turns = [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "!"}]
    stored = [
        {"image": {"bytes": png() + bytes([n]), "path": None}, "messages": turns, "label": "ab"[n % 2], "at": n}
        for n in range(40)
    ]
    source = folder / "d.parquet"
    pq.write_table(pa.Table.from_pylist(stored, schema), source, compression="zstd", row_group_size=7)
    write_part(source, iter([n % 3 == 0 for n in range(40)]), folder / "out")
    found = pq.ParquetFile(folder / "out" / "d.parquet")
    assert found.schema_arrow.equals(pq.read_schema(source), check_metadata=True)
    assert found.metadata.row_group(0).column(0).compression == "ZSTD"
    assert found.read().to_pylist() == pq.read_table(source).to_pylist()[::3]


def test_a_large_row_group_is_not_in_memory_whole(folder, png, monkeypatch):
    monkeypatch.setattr(writearrow, "GROUP_BYTES", 2**20)
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    made = [{"image": png() + n.to_bytes(4, "big") * 2_000, "messages": turns} for n in range(4_000)]  # 8 kB each
    source = folder / "d.parquet"
    pq.write_table(pa.Table.from_pylist(made), source, row_group_size=4_000)
    del made
    pool = pa.default_memory_pool()
    before, seen = pool.bytes_allocated(), []

    def keep():
        for n in range(4_000):
            seen.append(pool.bytes_allocated() - before)
            yield n % 4 > 0

    write_part(source, keep(), folder / "out")
    assert pq.ParquetFile(folder / "out" / "d.parquet").metadata.num_rows == 3_000
    assert max(seen) - seen[0] < 4_000_000  # of 35 MB; a page is there before the first row


@pytest.mark.parametrize("packed", [False, True])
def test_archives_keep_all_files_of_a_sample(folder, write_tar, png, packed):
    name, mode = ("d.tar.gz", "w:gz") if packed else ("d.tar", "w")
    samples = [
        (f"a/{n:03}", {"cls": b"7", "png": png(), "txt": f"caption {n}".encode(), "npy": bytes(9)}) for n in range(9)
    ]
    source = write_tar(folder / name, [("notes", {"md": b"of nobody"}), *samples], mode)
    uids = [row.uid for row in read(source)]
    assert len(uids) == 9
    write_part(source, flags(read(source), iter(uids[::4])), folder / "out")
    target = folder / "out" / name
    assert [row.uid for row in read(target)] == uids[::4]
    assert (target.read_bytes()[:2] == b"\x1f\x8b") == packed
    with tarfile.open(target) as archive:
        assert archive.getnames() == [f"{key}.{end}" for key, files in samples[::4] for end in files]
        assert archive.extractfile("a/004.npy").read() == bytes(9)
    first = target.read_bytes()
    write_part(source, flags(read(source), iter(uids[::4])), folder / "out")
    assert target.read_bytes() == first
    if packed:
        assert gzip.decompress(first)


def test_shards_keep_their_names_and_empty_ones_are_left_out(folder, write):
    data = folder / "shards"
    data.mkdir()
    for shard in range(3):
        write("jsonl", data / f"part-{shard}.jsonl", list(rows_of("llava", 5)))
    rows = list(read(data, images=folder))
    wanted = [row.uid for row in rows[:3] + rows[10:12]]
    written = write_part(data, flags(read(data, images=folder), iter(wanted)), folder / "out")
    assert [file.name for file in written] == ["part-0.jsonl", "part-2.jsonl"]
    # ids that repeat name rows by content and occurrence, and the occurrence counts anew in the subset
    assert len(list(read(folder / "out", images=folder))) == 5


def test_files_of_one_name_from_several_folders_stay_apart(folder, write):
    sources = []
    for name in "ab":
        (folder / name).mkdir()
        sources.append(write("json", folder / name / "d.json", list(rows_of("messages", 4))))
    written = write_part(sources, iter([True, False] * 4), folder / "out")
    assert [file.name for file in written] == ["0-d.json", "1-d.json"]


def test_a_dataset_in_memory_is_selected(folder, write):
    dataset = write("memory", None, list(rows_of("messages")))
    uids = [row.uid for row in read(dataset, images=folder)]
    found = select_rows(dataset, flags(read(dataset, images=folder), iter(uids[3:9])))
    assert isinstance(found, datasets.Dataset)
    assert found.to_list() == dataset.to_list()[3:9]


def test_the_first_problem_stops_and_leaves_nothing(folder, write):
    source = write("json", folder / "d.json", list(rows_of("messages", 6)))
    uids = [row.uid for row in read(source)]
    for wanted in (["unknown"], [uids[3], uids[1]], [*uids, "more"]):
        with pytest.raises(InputError, match="is not in the data"):
            write_part(source, flags(read(source), iter(wanted)), folder / "out")
        assert list((folder / "out").iterdir()) == []
    (folder / "red.png").unlink()
    bad = [row.uid for row in read(source)]
    assert bad != uids
    with pytest.raises(InputError, match=r"cannot be used now: image 'red\.png' does not exist"):
        write_part(source, flags(read(source), iter(bad[:1])), folder / "out")


def test_each_wanted_sample_is_seen_once(folder, write):
    source = write("jsonl", folder / "d.jsonl", list(rows_of("messages")))
    uids = [row.uid for row in read(source)]
    seen: list[Sample] = []
    kept = list(flags(read(source), iter(uids[::2]), seen.append))
    assert sum(kept) == len(seen) == 12
    assert [row.uid for row in seen] == uids[::2]


def test_what_llamafactory_reads():
    rows = {kind: next(rows_of(kind)) for kind in KINDS}
    assert entry("messages", rows["messages"], "d.json") == {
        "file_name": "d.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {
            "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
            "system_tag": "system"
        },
    }  # fmt: skip
    assert entry("sharegpt", rows["sharegpt"], "d.json")["columns"]["system"] == "system"
    assert entry("preference", rows["preference"], "d.json")["ranking"] is True
    alpaca = {"instruction": "a", "input": "b", "chosen": "c", "rejected": "d", "images": ["red.png"]}
    columns = {
        "prompt": "instruction",
        "query": "input",
        "chosen": "chosen",
        "rejected": "rejected",
        "images": "images",
    }
    assert entry("preference", alpaca, "d.json") == {
        "file_name": "d.json", "formatting": "alpaca", "ranking": True, "columns": columns
    }  # fmt: skip
    answers = {name: {"from": "gpt", "value": name} for name in ("chosen", "rejected")}
    turns = {"conversations": [{"from": "human", "value": "a"}]}
    assert entry("preference", turns | answers, "d.json") == {
        "file_name": "d.json", "formatting": "sharegpt", "ranking": True,
        "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
    }  # fmt: skip
    assert entry("prompt_completion", rows["prompt_completion"], "d.json")["columns"]["response"] == "completion"
    typed = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": "b"},
        ]
    }
    assert entry("messages", typed, "d.json") is None
    assert entry("preference", {"prompt": [], "chosen": [], "rejected": []}, "d.json") is None


def test_rows_that_a_data_set_lacks_are_an_error_and_not_left_out():
    """The end of the data is where a wanted row is found missing."""
    dataset = datasets.Dataset.from_list([{"n": n} for n in range(3)])

    def keep():
        yield from (True, False, True)
        raise InputError("the row x is not in the data")

    with pytest.raises(InputError, match="not in the data"):
        select_rows(dataset, keep())
    assert select_rows(dataset, iter((True, False, True)))["n"] == [0, 2]
