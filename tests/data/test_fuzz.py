"""Whatever stands in a file, each row is one sample or one bad row, and every sample keeps its promises."""

import copy
import json
import random

import pytest
from PIL import Image

from vfl.data import BadRow, Sample, check_images, read
from vfl.errors import InputError

JUNK = [
    None, True, 0, -1, 1.5, 10**30, "", " ", "<image>", "<image><image>\n", "red.png", "../red.png", "/etc/passwd",
    "\0", "\ud800", "x" * 5000, "data:image/png;base64,AAAA", "data:,", "http://[", "https://example.org/a.png", "file://",
    [], [[]], [None], ["red.png"], {}, {"type": "image"}, {"type": "text", "text": None}, {"bytes": None, "path": None},
    {"path": "red.png"}, {"bytes": "text"}, {"role": "user", "content": "Q"}, {"from": "gpt", "value": ""},
    {"role": ["user", "assistant"], "content": ["Q", "A"]}, {"a": {"b": {"c": [1, {"d": None}]}}},
]  # fmt: skip


def places(value, path=()):
    """The path of every node in a row."""
    yield path
    if isinstance(value, dict):
        for key, one in value.items():
            yield from places(one, (*path, key))
    elif isinstance(value, list):
        for i, one in enumerate(value):
            yield from places(one, (*path, i))


def mutated(rng, row):
    """The row with one to three of its nodes replaced, removed, repeated or exchanged."""
    row = copy.deepcopy(row)
    for _ in range(rng.randint(1, 3)):
        path = rng.choice(list(places(row)))
        if not path:
            if rng.random() < 0.05:
                return copy.deepcopy(rng.choice(JUNK))
            continue
        parent = row
        for step in path[:-1]:
            parent = parent[step]
        action = rng.randrange(4)
        if action == 0:
            del parent[path[-1]]
        elif action == 1 and isinstance(parent, list):
            parent.append(copy.deepcopy(rng.choice(parent)))
        elif action == 2 and isinstance(parent, dict):
            parent[rng.choice(["role", "from", "content", "value", "images", "image", "id", "system", "type", "x"])] = (
                parent.pop(path[-1])
            )
        else:
            parent[path[-1]] = copy.deepcopy(rng.choice(JUNK))
    return row


def check(found, number):
    assert len(found) == number
    assert len({row.uid for row in found}) == number
    for row in found:
        assert row.uid
        if isinstance(row, BadRow):
            assert row.reason
            continue
        for turns in (row.messages, row.rejected or row.messages):
            roles = [turn["role"] for turn in turns if turn["role"] != "system"]
            assert roles == ["user", "assistant"] * (len(roles) // 2)
            assert roles
            parts = [part for turn in turns for part in turn["content"]]
            assert sum(part == {"type": "image"} for part in parts) == len(row.images)
            for part in parts:
                assert part == {"type": "image"} or (part["type"] == "text" and part["text"] and len(part) == 2)
                part.get("text", "").encode("utf-8")
            assert all(
                any(part.get("text", "").strip() for part in turn["content"])
                for turn in turns
                if turn["role"] == "assistant"
            )


@pytest.fixture
def seeds(turns, from_value):
    typed = [{"type": "image"}, {"type": "text", "text": "What?"}, {"type": "image", "path": "red.png"}]
    return {
        "messages": {"id": 1, "messages": turns(typed, "Red.") + turns("And?", "Blue."), "images": ["red.png"]},
        "llava": {"id": "a", "image": "red.png", "conversations": from_value("<image>\nWhat?", "Red."), "n": 1},
        "sharegpt": {"conversations": from_value("<image> a <image>", "A"), "images": ["red.png"] * 2, "system": "S"},
        "prompt_completion": {"prompt": turns("Q", "A")[:1], "completion": "A", "images": ["red.png"]},
        "preference": {"chosen": turns("Q", "A"), "rejected": turns("Q", "B"), "prompt": "Q", "image": "red.png"},
    }


@pytest.mark.parametrize("kind", ["messages", "llava", "sharegpt", "prompt_completion", "preference"])
def test_mutated_rows(folder, seeds, kind):
    rng = random.Random(kind)
    rows = [mutated(rng, seeds[kind]) for _ in range(1500)]
    (folder / "data.json").write_text(json.dumps(rows))
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = list(read(folder / "data.json", format=kind))
    check(found, len(rows))
    kinds = {type(row) for row in found}
    assert kinds == {Sample, BadRow}
    as_lines = list(read(folder / "data.jsonl", format=kind))
    assert [row.uid for row in as_lines] == [row.uid for row in found]
    outside = [image for row in found if isinstance(row, Sample) for image in row.images if image.path is not None]
    assert outside
    assert all(image.path.is_relative_to(folder.resolve()) for image in outside)


def test_mutated_bytes_of_lines(folder, seeds):
    rng = random.Random(0)
    lines = []
    for _ in range(1500):
        line = bytearray(json.dumps(rng.choice([seeds["messages"], seeds["messages"] | {"id": None}])).encode())
        for _ in range(rng.randint(0, 3)):
            line[rng.randrange(len(line))] = rng.choice([*range(32, 127), 0, 0x80, 0xFF, 0xED])
        lines.append(bytes(line))
    (folder / "data.jsonl").write_bytes(b"\n".join(lines))
    check(list(read(folder / "data.jsonl", format="messages")), len(lines))


@pytest.mark.parametrize("container", ["json", "parquet", "webdataset"])
def test_mutated_bytes_of_a_container_are_bad_input_or_rows(folder, seeds, write, container):
    """No other exception comes out, wherever a file is damaged."""
    rng = random.Random(container)
    whole = write(container, folder / "data", [seeds["llava"] | {"id": str(i)} for i in range(5)]).read_bytes()
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        (folder / "data").write_bytes(damaged[: rng.choice([len(damaged), rng.randrange(len(damaged))])])
        try:
            found = list(read(folder / "data"))
        except InputError:
            continue
        assert all(isinstance(row, (Sample, BadRow)) for row in found)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_damaged_images_are_bad_rows(folder, turns, suffix):
    rng = random.Random(suffix)
    Image.effect_noise((40, 30), 50).convert("RGB").save(folder / f"whole.{suffix}")
    whole = (folder / f"whole.{suffix}").read_bytes()
    (folder / "data.json").write_text(json.dumps([{"messages": turns("Q", "A"), "image": f"damaged.{suffix}"}]))
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            damaged[rng.randrange(min(len(damaged), rng.choice([40, 400, 4000])))] = rng.randrange(256)
        (folder / f"damaged.{suffix}").write_bytes(damaged[: rng.choice([len(damaged), rng.randrange(len(damaged))])])
        for row in check_images(read(folder / "data.json")):
            assert isinstance(row, BadRow)
