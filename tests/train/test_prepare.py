"""Every row is read and encoded before the first step, and what can't be used is told with its place."""

import json

import pytest

import vfl
from vfl.errors import InputError
from vfl.models.conversation import encoder_of
from vfl.train.data_config import DataConfig
from vfl.train.rows.prepare import prepare

KINDS = ("image", "text", "turns", "images")


@pytest.fixture(scope="module")
def encoder(qwen):
    return encoder_of(vfl.load(qwen, device="cpu"))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "run"


def prepared(encoder, out, path, method="sft", **config):
    settings = DataConfig(train=(path,), **config)
    return prepare(settings, encoder, method=method, errors=out / "errors.jsonl", progress=False)


def changed(path, folder, change):
    """The data with its rows changed, beside the same pictures."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = change(rows) or rows
    other = path.with_name(f"{folder.name}.jsonl")
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return other


def test_what_is_read_is_counted_and_measured(encoder, out, data_of):
    ready = prepared(encoder, out, data_of(*KINDS))
    facts = ready.facts
    assert (facts.rows, facts.used, facts.text_only, facts.multi_turn, facts.multi_image) == (4, 4, 1, 1, 1)
    assert [a + b for a, b in zip(ready.text, ready.image, strict=True)] == list(ready.rows["length"])
    assert [count > 0 for count in ready.image] == [True, False, True, True]
    assert not (out / "errors.jsonl").exists()


@pytest.mark.parametrize("broken", ["missing", "corrupt", "text"])
def test_a_bad_image_is_named_with_its_row(encoder, out, data_of, broken):
    def change(rows):
        rows[2]["id"] = "the-third"
        rows[2]["images"] = [f"{broken}.png"]

    path = changed(data_of(*KINDS), out.parent, change)
    whole = (path.parent / "0-0.png").read_bytes()
    if broken != "missing":
        (path.parent / f"{broken}.png").write_bytes(whole[: len(whole) // 2] if broken == "corrupt" else b"no image")
    with pytest.raises(InputError, match=f"1 of 4 rows.*line 3.*the-third.*{broken}.png.*on_bad_row=skip"):
        prepared(encoder, out, path)
    (line,) = (out / "errors.jsonl").read_text().splitlines()
    assert json.loads(line)["uid"] == "the-third"
    ready = prepared(encoder, out, path, on_bad_row="skip")
    assert (ready.facts.used, ready.facts.bad) == (3, 1)
    assert "the-third" not in ready.rows["uid"]


def test_long_rows_are_counted_never_cut(encoder, out, data_of):
    path = data_of(*KINDS)
    lengths = sorted(prepared(encoder, out, path).rows["length"])
    limit = lengths[-2]
    assert limit < lengths[-1]
    with pytest.raises(InputError, match=rf"1 of 4 rows are too long.*data.max_length is {limit}.*on_long_row=skip"):
        prepared(encoder, out, path, max_length=limit)
    ready = prepared(encoder, out, path, max_length=limit, on_long_row="skip")
    assert sorted(ready.rows["length"]) == lengths[:-1]
    assert ready.facts.too_long == 1
    with pytest.raises(InputError, match="No row of"):
        prepared(encoder, out, path, max_length=1, on_long_row="skip")


def test_equal_rows_are_counted_apart(encoder, out, data_of):
    """The same row twice, one of them over-long in neither: both stay, under ids of their own."""
    path = changed(data_of("image", "text"), out.parent, lambda rows: rows + rows)
    ready = prepared(encoder, out, path)
    assert len(set(ready.rows["uid"])) == 4


def test_rows_of_the_other_method_are_refused(encoder, out, data_of):
    with pytest.raises(InputError, match="method: dpo"):
        prepared(encoder, out, data_of("pair"))
    with pytest.raises(InputError, match="method: sft"):
        prepared(encoder, out, data_of("image"), method="dpo")


@pytest.mark.parametrize("number", [0, 3])
@pytest.mark.parametrize("side", ["question", "answer"])
def test_a_control_token_in_a_text_is_a_bad_row_wherever_it_stands(encoder, out, data_of, number, side):
    """The rows behind the first batch are audited as those in it."""
    end = encoder.tokenizer.convert_ids_to_tokens(min(encoder.end_ids))

    def change(rows):
        rows[number]["messages"][side == "answer"]["content"][-1]["text"] += f" {end} more"

    path = changed(data_of(*KINDS), out.parent, change)
    with pytest.raises(InputError, match=f"1 of 4 rows.*line {number + 1}.*control token"):
        prepared(encoder, out, path)


def test_a_tag_of_a_video_is_a_bad_row(encoder, out, data_of):
    def change(rows):
        rows[1]["messages"][0]["content"][-1]["text"] = "<video> What happens?"

    path = changed(data_of(*KINDS), out.parent, change)
    with pytest.raises(InputError, match=r"line 2.*<video>"):
        prepared(encoder, out, path)


def test_the_loss_of_every_row_is_audited(encoder, out, data_of, monkeypatch):
    """An encoder that marks the prompt of one row, far behind the first batch, as its answer."""
    encode = type(encoder).encode

    def wrong(self, conversations, prompt_turns=None):
        batch = encode(self, conversations, prompt_turns)
        if "two cats" in str(conversations):
            batch.answers[:, 0] = True
        return batch

    monkeypatch.setattr(type(encoder), "encode", wrong)
    with pytest.raises(InputError, match=r"line 8.*loss is on other tokens"):
        prepared(encoder, out, changed(data_of("text", *["image"] * 7), out.parent, _only_the_last_has_two_cats))


def _only_the_last_has_two_cats(rows):
    for row in rows:
        row["messages"][1]["content"][0]["text"] = "red"
    rows[7]["messages"][1]["content"][0]["text"] = "two cats"
