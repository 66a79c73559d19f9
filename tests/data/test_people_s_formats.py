"""Rows as other tools and data sets write them, each read as the page on formats says."""

import base64
import json

import pytest

from vfl.data import BadRow, Sample, detect, read
from vfl.errors import InputError

IMAGE = {"type": "image"}
Q, A = "What colour is it?", "Red."


def told(sample):
    """Roles and texts, with <image> where one is."""
    assert isinstance(sample, Sample), sample
    return [
        (turn["role"], "".join(part.get("text", "<image>") for part in turn["content"])) for turn in sample.messages
    ]


def read_row(write, folder, row, **options):
    (found,) = read(write("jsonl", folder / "row.jsonl", [row]), images=folder, **options)
    return found


PLAIN = [("user", f"<image>{Q}"), ("assistant", A)]
ROWS = {
    "alpaca": {"instruction": Q, "input": "", "output": A, "images": ["red.png"]},
    "query_response": {"query": f"<image>{Q}", "response": A, "images": ["red.png"]},
    "question_answer": {"question": Q, "answer": A, "image": "red.png"},
    "texts": {"images": ["red.png"], "texts": [{"user": Q, "assistant": A, "source": "VQA"}]},
    "verl": {
        "data_source": "geo", "prompt": [{"role": "user", "content": f"<image>{Q}"}], "images": [{"path": "red.png"}],
        "reward_model": {"style": "rule", "ground_truth": A}, "extra_info": {"split": "train"},
    },
}  # fmt: skip


@pytest.mark.parametrize("container", ["json", "jsonl", "parquet", "saved"])
@pytest.mark.parametrize("kind", ROWS)
def test_each_kind_is_known_and_read(folder, write, kind, container):
    data = write(container, folder / "data", [ROWS[kind]])
    assert detect(data).kind == kind
    (sample,) = read(data, images=folder)
    assert told(sample) == PLAIN
    assert sample.images[0].open().size == (8, 6)


def test_rows_of_several_kinds_stand_in_one_file(folder, write, turns, from_value):
    rows = [*ROWS.values(), {"messages": turns(Q, A), "image": "red.png"}]
    rows += [{"conversations": from_value(Q, A), "image": "red.png"}]
    assert [told(sample) for sample in read(write("jsonl", folder / "d.jsonl", rows))] == [PLAIN] * len(rows)
    named = list(read(folder / "d.jsonl", format="messages"))
    assert [type(row) for row in named] == [BadRow] * 5 + [Sample] + [BadRow]


def test_instruction_input_system_and_history(folder, write):
    row = {"instruction": "Name it.", "input": "The sky.", "output": "Blue.", "system": "Be brief."}
    row["history"] = [["Hello?", "Hello."]]
    expected = [
        ("system", "Be brief."), ("user", "Hello?"), ("assistant", "Hello."), ("user", "Name it.\nThe sky."),
        ("assistant", "Blue."),
    ]  # fmt: skip
    assert told(read_row(write, folder, row)) == expected
    assert "is no pair" in read_row(write, folder, row | {"history": ["Hello?"]}).reason
    assert "output is empty" in read_row(write, folder, row | {"output": ""}).reason


def test_several_texts_are_not_taken_for_one_answer(folder, write, turns):
    """Once LLaMA-Factory's preferences, and the answers of several people."""
    for row in (
        {"instruction": Q, "input": "", "output": [A, "Blue."]},
        {"question": Q, "answer": [A, "red"]},
        {"messages": turns(Q, [A, "Blue."])},
    ):
        assert "is a list of 2 texts; expected one" in read_row(write, folder, row).reason
    assert told(read_row(write, folder, {"question": Q, "answer": [A]})) == [("user", Q), ("assistant", A)]


PREFERENCES = [
    {"instruction": "What colour", "input": "is it?", "chosen": A, "rejected": "Blue.", "images": ["red.png"]},
    {"question": Q, "chosen": A, "rejected": "Blue.", "image": "red.png"},
    {
        "conversations": [{"from": "human", "value": Q}], "chosen": {"from": "gpt", "value": A},
        "rejected": {"from": "gpt", "value": "Blue."}, "images": ["red.png"],
    },
    {"query": Q, "response": A, "rejected_response": "Blue.", "images": ["red.png"]},
    {
        "messages": [{"role": "user", "content": Q}, {"role": "assistant", "content": A}],
        "rejected_response": "Blue.", "images": ["red.png"],
    },
    {
        "messages": [{"role": "user", "content": Q}, {"role": "assistant", "content": A}],
        "rejected_messages": [{"role": "user", "content": Q}, {"role": "assistant", "content": "Blue."}],
        "images": ["red.png"],
    },
]  # fmt: skip


@pytest.mark.parametrize("row", PREFERENCES, ids=range(len(PREFERENCES)))
def test_preferences_of_other_tools(folder, write, row):
    sample = read_row(write, folder, row)
    asked = f"<image>{Q}".replace("colour is", "colour\nis") if "instruction" in row else f"<image>{Q}"
    assert told(sample) == [("user", asked), ("assistant", A)]
    assert sample.rejected[-1]["content"] == [{"type": "text", "text": "Blue."}]
    assert (sample.prompt, len(sample.rejected)) == (1, 2)
    assert detect(folder / "row.jsonl").kind == "preference"


def test_roles_of_other_tools(folder, write):
    written = [("Developer", "D"), ("Human", "Q"), ("function_call", "f()"), ("observation", "3"), ("GPT", "A")]
    sample = read_row(write, folder, {"conversations": [{"from": role, "value": text} for role, text in written]})
    assert [turn["role"] for turn in sample.messages] == ["system", "user", "assistant", "user", "assistant"]
    row = {"messages": [{"role": role, "content": "x"} for role in ("user", "assistant", "tool", "assistant")]}
    assert [turn["role"] for turn in read_row(write, folder, row).messages] == ["user", "assistant"] * 2


def test_an_empty_system_turn_and_a_first_turn_by_gpt_are_left_out(folder, write, turns, from_value):
    for blank in ("", " ", None):
        row = {"messages": [{"role": "system", "content": blank}, *turns(Q, A)]}
        assert told(read_row(write, folder, row)) == [("user", Q), ("assistant", A)]
    first = {"conversations": [{"from": "gpt", "value": "Hello."}, *from_value(Q, A)]}
    assert told(read_row(write, folder, first)) == [("user", Q), ("assistant", A)]
    assert "turn 1 is the assistant's" in read_row(write, folder, {"conversations": first["conversations"][:1]}).reason


def test_messages_as_json_text(folder, write, turns):
    for container in ("jsonl", "parquet"):
        data = write(container, folder / f"d.{container}", [{"messages": json.dumps(turns(Q, A)), "image": "red.png"}])
        assert [told(sample) for sample in read(data)] == [PLAIN]
    assert "is not JSON" in read_row(write, folder, {"messages": "[{"}).reason


def test_typed_entries_of_openai_axolotl_and_others(folder, write, turns, png):
    packed = base64.b64encode(png(size=(3, 2))).decode()
    address = f"data:image/png;base64,{packed}"
    for entry in (
        {"type": "image", "base64": packed},
        {"type": "image", "base64": address},
        {"type": "input_image", "image_url": address},
        {"type": "image_url", "image_url": {"url": address, "detail": "low"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": packed}},
    ):
        row = {"messages": turns([entry, {"type": "input_text", "text": Q}], [{"type": "output_text", "text": A}])}
        sample = read_row(write, folder, row)
        assert told(sample) == PLAIN
        assert sample.images[0].open().size == (3, 2)
    alone = read_row(write, folder, {"question": Q, "answer": A, "image": packed})
    assert alone.images[0].open().size == (3, 2)
    broken = {"messages": turns([{"type": "image", "base64": "@@"}, {"type": "text", "text": Q}], A)}
    assert "broken base64" in read_row(write, folder, broken).reason


@pytest.mark.parametrize(
    "layout",
    [
        ("d.jsonl", lambda rows: json.dumps(rows)),
        ("d.jsonl", lambda rows: json.dumps(rows, indent=1)),
        ("d.json", lambda rows: json.dumps({"data": rows})),
        ("d.json", lambda rows: json.dumps({"data": rows}, indent=2)),
        ("d.json", lambda rows: "\n".join(json.dumps(row, indent=2) for row in rows)),
        ("d.jsonl", lambda rows: "\r\n".join(json.dumps(row, indent=4) for row in rows)),
        ("d.json", lambda rows: json.dumps(rows[0]).replace(", ", ",\n") + "\n" + json.dumps(rows[1])),
    ],
    ids=range(7),
)
def test_layouts_of_json(folder, layout):
    name, write_text = layout
    (folder / name).write_text(write_text(list(ROWS.values())[:2]), newline="")
    assert detect(folder / name).container == "json"
    assert [told(sample) for sample in read(folder / name)] == [PLAIN, PLAIN]


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_packed_lines_and_arrays(folder, ending):
    import pyarrow as pa

    for name, text in (
        ("d.jsonl", "\n".join(map(json.dumps, ROWS.values()))),
        ("d.json", json.dumps([*ROWS.values()])),
    ):
        path = folder / f"{name}.{ending}"
        with pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), {"gz": "gzip", "zst": "zstd"}[ending]) as stream:
            stream.write(text.encode())
        assert [told(sample) for sample in read(path)] == [PLAIN] * len(ROWS)


def test_a_folder_with_its_dataset_info(folder, write):
    (folder / "data").mkdir()
    (folder / "data" / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": "mine.json"}}))
    write("json", folder / "data" / "mine.json", [ROWS["alpaca"]])
    assert [told(sample) for sample in read(folder / "data", images=folder)] == [PLAIN]


def test_a_hub_repository_s_folder(folder, write):
    repository = folder / "repository"
    (repository / "data").mkdir(parents=True)
    (repository / "README.md").write_text("of the data")
    for n in range(2):
        write("parquet", repository / "data" / f"train-{n:05}-of-00002.parquet", [ROWS["texts"]])
    assert [told(sample) for sample in read(repository, images=folder)] == [PLAIN] * 2
    write("parquet", repository / "data" / "test-00000-of-00001.parquet", [ROWS["texts"]] * 3)
    with pytest.raises(InputError, match="or the split"):
        read(repository)
    assert len(list(read(repository, images=folder, split="train"))) == 2
    assert len(list(read(repository, images=folder, split="test"))) == 3
    with pytest.raises(InputError, match="no splits called 'dev'"):
        read(repository, split="dev")
