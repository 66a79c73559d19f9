"""A row that cannot be used is one BadRow with a plain reason, and the rows around it are read."""

import json

import pytest

from vfl.data import BadRow, Sample, read

GOOD = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


MESSAGES = {
    "unknown role 'critic'": [user("Q"), {"role": "critic", "content": "A"}],
    "unknown role 3": [{"role": 3, "content": "Q"}, assistant("A")],
    "has no role": [{"content": "Q"}, assistant("A")],
    "messages is empty": [],
    "messages is missing": None,
    "messages is text": "Q",
    "messages is 3": 3,
    "turn 1 is text": ["Q", "A"],
    "turn 2 (assistant) is empty": [user("Q"), assistant("")],
    "turn 2 (assistant) is empty ": [user("Q"), assistant(" \n")],
    "turn 2 (assistant) is empty  ": [user("Q"), assistant(None)],
    "turn 2 (assistant) is empty   ": [user("Q"), {"role": "assistant"}],
    "turn 2 (assistant) is empty    ": [user("Q"), assistant([])],
    "turn 1 (user) is empty": [user("  "), assistant("A")],
    "turn 1 (user) holds 3": [user(3), assistant("A")],
    "turn 1 is the assistant's, expected the user's": [assistant("A")],
    "turn 2 is the user's, expected the assistant's": [user("Q"), user("Q"), assistant("A")],
    "turn 3 is the assistant's": [user("Q"), assistant("A"), assistant("A")],
    "turn 2 is the system's": [user("Q"), {"role": "system", "content": "S"}, assistant("A")],
    "the last turn is the user's": [user("Q"), assistant("A"), user("Q")],
    "the last turn is the user's ": [user("Q")],
    "the last turn is the system's": [{"role": "system", "content": "S"}],
    "entry of type 'video'": [user([{"type": "video", "video": "a.mp4"}]), assistant("A")],
    "entry of type None": [user([{}]), assistant("A")],
    "an entry that is 3": [user([3]), assistant("A")],
    "text entry whose text is missing": [user([{"type": "text"}]), assistant("A")],
    "half of a surrogate pair": [user("Q\ud83d"), assistant("A")],
    "unequal length": {"role": ["user", "assistant"], "content": ["Q"]},
    "an image is 3": [user([{"type": "image", "image": 3}]), assistant("A")],
    "neither bytes nor": [user([{"type": "image", "image": {"file": "red.png"}}]), assistant("A")],
}


@pytest.mark.parametrize(("reason", "messages"), MESSAGES.items())
def test_messages_that_are_none(tmp_path, reason, messages):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (GOOD, {"messages": messages}, GOOD)))
    first, bad, last = read(path)
    assert isinstance(first, Sample)
    assert isinstance(last, Sample)
    assert isinstance(bad, BadRow)
    assert bad.where == "data.jsonl line 2"
    assert reason.strip() in bad.reason


ROWS = {
    ("preference", "do not differ"): {"chosen": GOOD["messages"], "rejected": GOOD["messages"]},
    ("preference", "share no prompt"): {
        "chosen": [user("Q"), assistant("A")],
        "rejected": [user("other"), assistant("A")],
    },
    ("preference", "share no prompt "): {
        "chosen": [user("Q"), assistant("A"), user("Q"), assistant("A")],
        "rejected": [user("Q"), assistant("A"), user("other"), assistant("A")],
    },
    ("preference", "do not differ "): {
        "chosen": [user("Q"), assistant("A")],
        "rejected": [user("Q"), assistant("A"), user("Q"), assistant("A")],
    },
    ("preference", "an image stands after the prompt"): {
        "prompt": "Q",
        "chosen": [assistant("A"), user([{"type": "image", "url": "data:;base64,"}]), assistant("A")],
        "rejected": "B",
    },
    ("preference", "prompt is missing"): {"chosen": "A", "rejected": "B"},
    ("preference", "rejected is missing"): {"prompt": "Q", "chosen": "A"},
    ("preference", "(assistant) is empty"): {"prompt": "Q", "chosen": "A", "rejected": " "},
    ("preference", "rejected is empty"): {"prompt": "Q", "chosen": "A", "rejected": ""},
    ("prompt_completion", "completion is empty"): {"prompt": "Q", "completion": ""},
    ("prompt_completion", "prompt is missing"): {"completion": "A"},
    ("prompt_completion", "turn 2 is the user's"): {"prompt": "Q", "completion": [user("A")]},
    ("llava", "conversations is missing"): {"messages": GOOD["messages"]},
    ("llava", "unknown role 'chatgpt'"): {"conversations": [{"from": "chatgpt", "value": "f()"}]},
    ("sharegpt", "system holds 3"): {"conversations": GOOD["messages"], "system": 3},
    ("messages", "the row has videos"): GOOD | {"videos": ["a.mp4"]},
    ("messages", "an image is None"): GOOD | {"images": [None]},
    ("messages", "an image is a list"): GOOD | {"images": [["red.png"]]},
    ("messages", "does not exist"): GOOD | {"image": "absent.png"},
}


@pytest.mark.parametrize(("kind", "reason", "row"), [(*key, row) for key, row in ROWS.items()])
def test_rows_that_are_none(tmp_path, kind, reason, row):
    path = tmp_path / "data.json"
    path.write_text(json.dumps([row]))
    (bad,) = read(path, format=kind)
    assert isinstance(bad, BadRow)
    assert reason.strip() in bad.reason


LINES = {
    b"{": "not JSON",
    b'{"messages": [': "not JSON",
    b"[1, 2]": "no object but a list",
    b'"text"': "no object but 'text'",
    b"null": "no object but None",
    b'{"a": "\xff"}': "not UTF-8 text",
    b"\x00": "not JSON",
    b"[" * 100_000: "nested too deeply",
    b'{"a":' * 5_000 + b"1" + b"}" * 5_000: "nested too deeply",
    b"9" * 5_000: "not JSON",
}


@pytest.mark.parametrize(("line", "reason"), LINES.items(), ids=range(len(LINES)))
@pytest.mark.parametrize("first", [True, False])
def test_lines_that_are_no_rows(tmp_path, line, reason, first):
    good = json.dumps(GOOD).encode()
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\n".join([line, good, line] if first else [good, line, b"", line]))
    found = list(read(path))
    bad = [row for row in found if isinstance(row, BadRow)]
    assert len(found) == 3
    assert len(bad) == 2
    assert all(reason in row.reason for row in bad)
    assert bad[0].uid.removesuffix("#0") == bad[1].uid.removesuffix("#1")  # the same line twice, two names


def test_a_bad_row_keeps_its_unique_id(tmp_path):
    path = tmp_path / "data.json"
    path.write_text(json.dumps([{"id": "a", "messages": []}, {"id": "b"} | GOOD]))
    assert [row.uid for row in read(path)] == ["a", "b"]


def test_columns_of_another_type_are_bad_rows_in_arrow(tmp_path):
    """A schema of the wrong type spoils all rows, and none of them the run."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for values in ([1, 2], ["text", "more"], [[1], [2]], [[["a"]], []], [{"role": "user"}, None], [b"\xff", b""]):
        pq.write_table(pa.table({"messages": values, "images": [1.5, None]}), tmp_path / "data.parquet")
        assert [type(row) for row in read(tmp_path / "data.parquet", format="messages")] == [BadRow, BadRow]


def test_broken_json_in_a_column_is_a_bad_row(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    stored = pa.array([json.dumps(GOOD["messages"]), "[{", None], type=pa.string())
    column = pa.ExtensionArray.from_storage(pa.json_(), stored)
    pq.write_table(pa.table({"messages": column}), tmp_path / "data.parquet")
    good, bad, missing = read(tmp_path / "data.parquet")
    assert isinstance(good, Sample)
    assert bad.reason.startswith("column messages is not JSON")
    assert missing.reason.startswith("messages is missing")
