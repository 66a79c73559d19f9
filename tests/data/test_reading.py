"""The same rows give the same samples, whatever the format and the container."""

import json
import pickle
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vfl.data import BadRow, Format, Sample, detect, read
from vfl.errors import InputError

CONTAINERS = ["json", "jsonl", "parquet", "saved", "memory", "webdataset"]
IMAGE = {"type": "image"}


def text(words):
    return {"type": "text", "text": words}


def same(first, second):
    """Equal but for where the row stood, the stored id and the format's own columns."""
    strip = {"where": "", "columns": {}}
    return replace(first, **strip) == replace(second, **strip)


@pytest.fixture(scope="module")
def rows(turns, from_value):
    """For each kind, a row that asks two questions about two images, and what its sample's turns are."""
    later = ["And <image>?", "Blue."]
    return {
        "messages": {
            "messages": turns("<image>\nWhat?", "Red.") + turns(*later),
            "images": ["red.png", "below/blue.jpg"],
            "source": "made",
        },
        "llava": {
            "image": ["red.png", "below/blue.jpg"],
            "conversations": from_value("<image>\nWhat?", "Red.") + from_value(*later),
            "source": "made",
        },
        "sharegpt": {
            "conversations": from_value("<image>\nWhat?", "Red.") + from_value(*later),
            "images": ["red.png", "below/blue.jpg"],
            "source": "made",
        },
        "prompt_completion": {
            "prompt": [*turns("<image>\nWhat?", "Red."), {"role": "user", "content": later[0]}],
            "completion": [{"role": "assistant", "content": "Blue."}],
            "images": ["red.png", "below/blue.jpg"],
            "source": "made",
        },
        "preference": {
            "prompt": [*turns("<image>\nWhat?", "Red."), {"role": "user", "content": later[0]}],
            "chosen": [{"role": "assistant", "content": "Blue."}],
            "rejected": [{"role": "assistant", "content": "Green."}],
            "images": ["red.png", "below/blue.jpg"],
            "source": "made",
        },
    }


EXPECTED = (
    {"role": "user", "content": [IMAGE, text("What?")]},
    {"role": "assistant", "content": [text("Red.")]},
    {"role": "user", "content": [text("And "), IMAGE, text("?")]},
    {"role": "assistant", "content": [text("Blue.")]},
)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("kind", ["messages", "llava", "sharegpt", "prompt_completion", "preference"])
def test_each_kind_in_each_container(folder, rows, write, kind, container):
    source = write(container, folder / "data", [rows[kind]])
    (sample,) = read(source, images=folder)
    assert isinstance(sample, Sample), sample
    assert sample.messages == EXPECTED
    assert [image.name for image in sample.images] == ["red.png", "below/blue.jpg"]
    assert [image.open().size for image in sample.images] == [(8, 6), (5, 7)]
    assert sample.columns == {"source": "made"}
    assert sample.row is None
    assert sample.prompt == (3 if kind in ("prompt_completion", "preference") else 0)
    if kind == "preference":
        assert sample.rejected == (*EXPECTED[:3], {"role": "assistant", "content": [text("Green.")]})
    else:
        assert sample.rejected is None
    assert pickle.loads(pickle.dumps(sample)) == sample
    if container != "memory":
        assert detect(source) == Format(
            "hf" if container == "saved" else container, kind, f"{sample.where} has {', '.join(rows[kind])}"
        )
    (named,) = read(source, images=folder, format=kind)
    assert named == sample


def test_a_row_has_the_same_name_in_every_container_and_format(folder, rows, write):
    kinds = ["messages", "llava", "sharegpt", "prompt_completion"]  # a preference row says more
    uids = {
        next(read(write(container, folder / f"{kind}-{container}", [rows[kind]]), images=folder)).uid
        for kind in kinds
        for container in CONTAINERS
        if container != "webdataset"  # there the archive names the row
    }
    assert len(uids) == 1


def test_prompt_and_completion_may_be_texts(folder, write):
    row = {"prompt": "What?", "completion": "Red.", "image": "red.png"}
    (sample,) = read(write("jsonl", folder / "data", [row]))
    assert sample.messages == (
        {"role": "user", "content": [IMAGE, text("What?")]},
        {"role": "assistant", "content": [text("Red.")]},
    )
    assert sample.prompt == 1


def test_a_preference_row_without_prompt_shares_its_beginning(folder, write, turns):
    given = {
        "prompt": [{"role": "user", "content": "Q"}],
        "chosen": turns("Q", "a")[1:],
        "rejected": turns("Q", "b")[1:],
    }
    shared = {"prompt": None, "chosen": turns("Q", "a"), "rejected": turns("Q", "b")}
    told_twice = {"prompt": "Q", "chosen": turns("Q", "a"), "rejected": turns("Q", "b")}
    first, second, third = read(write("json", folder / "data", [given, shared, told_twice]))
    assert same(replace(second, uid=first.uid), first)
    assert same(replace(third, uid=first.uid), first)
    assert first.prompt == 1


def test_rows_of_text_alone_and_rows_with_images_mix(folder, write, from_value):
    """As in LLaVA's data: the text rows have no key `image`, or nothing in it; Arrow fills such columns."""
    with_image = {"id": "a", "image": "red.png", "conversations": from_value("<image>\nWhat?", "Red.")}
    plain = {"id": "b", "conversations": from_value("Hello?", "Hello.")}
    for container in CONTAINERS:
        for blank in ({}, {"image": None}, {"image": ""}):
            for mixed in ([with_image, plain | blank], [plain | blank, with_image]):
                name = folder / f"{container}-{len(list(folder.iterdir()))}"
                found = {sample.uid: sample for sample in read(write(container, name, mixed), images=folder)}
                assert len(found["a"].images) == 1
                assert found["b"].images == ()
                assert found["b"].messages[0]["content"] == [text("Hello?")]


def test_the_system_turn_of_sharegpt_may_have_its_own_column(folder, write, turns, from_value):
    rows = [
        {"conversations": from_value("Q", "A"), "system": "Be brief.", "images": []},
        {"messages": turns("Q", "A"), "system": "Be brief.", "images": []},
        {"conversations": [{"from": "system", "value": "Be brief."}, *from_value("Q", "A")], "system": ""},
    ]
    expected = {"role": "system", "content": [text("Be brief.")]}
    for i, row in enumerate(rows):
        (sample,) = read(write("json", folder / f"{i}.json", [row]))
        assert sample.messages[0] == expected
        assert [turn["role"] for turn in sample.messages] == ["system", "user", "assistant"]


@pytest.mark.parametrize("container", ["parquet", "saved", "memory"])
@pytest.mark.parametrize("one", [True, False])
def test_embedded_images_are_read_as_they_are(folder, write, turns, png, container, one):
    data = png("purple", (3, 9))
    struct = {"bytes": data, "path": "inside.png"}
    rows = [
        {"messages": turns("What?", "Purple."), ("image" if one else "images"): struct if one else [struct]},
        {"messages": turns("What?", "Nothing."), ("image" if one else "images"): None},
    ]
    sample, without = read(write(container, folder / "data", rows))
    (image,) = sample.images
    assert (image.data, image.name, image.path) == (data, "inside.png", None)
    assert image.open().getpixel((0, 0)) == (128, 0, 128)
    assert without.images == ()


def test_image_columns_of_datasets_are_not_decoded_on_the_way(folder, turns, png):
    import datasets

    rows = [{"messages": turns("What?", "Purple."), "images": [png("purple")], "kind": "b"} for _ in range(3)]
    features = datasets.Features(
        {
            "messages": datasets.List({"role": datasets.Value("string"), "content": datasets.Value("string")}),
            "images": datasets.List(datasets.Image()),
            "kind": datasets.ClassLabel(names=["a", "b"]),
        }
    )
    dataset = datasets.Dataset.from_list(rows, features=features)
    samples = list(read(dataset))
    assert [sample.images[0].data for sample in samples] == [png("purple")] * 3
    assert samples[0].columns == {"kind": "b"}  # the label's name, not its number
    assert samples[0].where == "dataset row 1"


def test_a_dataset_is_read_in_the_order_it_stands_in(turns):
    import datasets

    dataset = datasets.Dataset.from_list([{"id": i, "messages": turns("Q", "A")} for i in range(50)])
    picked = dataset.shuffle(seed=0).select(range(30)).filter(lambda row: row["id"] % 2 == 0)
    assert [sample.uid for sample in read(picked)] == [str(i) for i in picked["id"]]


def test_a_damaged_saved_dataset_is_bad_input(folder, write, turns):
    source = write("saved", folder / "data", [{"messages": turns("Q", "A" * 200)}] * 50)
    (arrow,) = source.glob("*.arrow")
    whole = arrow.read_bytes()
    for damaged in (whole[:100], whole[: len(whole) // 2], whole[:500] + bytes(200) + whole[700:], b""):
        arrow.write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be"):
            list(read(source, format="messages"))


def test_content_of_mixed_types_survives_datasets(folder, turns):
    """`datasets` stores a column whose values are texts in one row and lists in another as JSON."""
    import datasets

    typed = [IMAGE, text("What?")]
    rows = [{"messages": turns(typed, "Red."), "image": "red.png"}, {"messages": turns("Q", "A"), "image": None}]
    dataset = datasets.Dataset.from_list(rows, on_mixed_types="use_json")
    for source in (dataset, _saved(dataset, folder / "saved"), _parquet(dataset, folder / "data.parquet")):
        first, second = read(source, images=folder)
        assert first.messages[0]["content"] == typed
        assert second.messages[0]["content"] == [text("Q")]


def _saved(dataset, path):
    dataset.save_to_disk(path)
    return path


def _parquet(dataset, path):
    dataset.to_parquet(path)
    return path


def test_a_split_is_chosen_by_name_or_by_folder(folder, turns):
    import datasets

    splits = {name: datasets.Dataset.from_list([{"messages": turns("Q", name)}]) for name in ("train", "test")}
    datasets.DatasetDict(splits).save_to_disk(folder / "both")
    for given in ({"source": folder / "both", "split": "test"}, {"source": folder / "both" / "test"}):
        (sample,) = read(**given)
        assert sample.messages[1]["content"] == [text("test")]
    with pytest.raises(InputError, match="has the splits train, test"):
        read(folder / "both")
    with pytest.raises(InputError, match="no split 'dev'; it has train, test"):
        read(folder / "both", split="dev")
    with pytest.raises(InputError, match="no splits"):
        read(folder / "both" / "test", split="test")
    datasets.DatasetDict({"only": splits["train"]}).save_to_disk(folder / "one")
    assert len(list(read(folder / "one"))) == 1
    with pytest.raises(InputError, match="DatasetDict was given"):
        read(datasets.DatasetDict(splits))


def test_several_sources_follow_each_other(folder, write, turns, from_value):
    first = write("jsonl", folder / "a.jsonl", [{"messages": turns("Q", str(i))} for i in range(3)])
    second = write("parquet", folder / "b.parquet", [{"conversations": from_value("Q", str(i))} for i in range(2)])
    samples = list(read([first, str(second)]))
    assert [sample.where for sample in samples] == [
        *(f"a.jsonl line {i}" for i in (1, 2, 3)),
        *(f"b.parquet row {i}" for i in (1, 2)),
    ]


def test_a_folder_of_shards_is_read_in_the_order_of_their_names(folder, write, turns):
    shards = folder / "shards"
    shards.mkdir()
    for i in (2, 0, 1):
        write("parquet", shards / f"train-{i:05}-of-00003.parquet", [{"messages": turns("Q", f"answer {i}")}])
    (shards / "README.md").write_text("not data")
    answers = [sample.messages[1]["content"][0]["text"] for sample in read(shards)]
    assert answers == ["answer 0", "answer 1", "answer 2"]
    write("parquet", shards / "test-00000.parquet", [{"messages": turns("Q", "A")}])
    with pytest.raises(InputError, match="several names"):
        read(shards)
    write("jsonl", shards / "more.jsonl", [{"messages": turns("Q", "A")}])
    with pytest.raises(InputError, match=r"\.jsonl and \.parquet"):
        read(shards)


def test_the_stored_row_is_kept_if_asked(folder, rows, write):
    for container in ("json", "jsonl", "parquet"):
        (sample,) = read(write(container, folder / f"data.{container}", [rows["messages"]]), keep_rows=True)
        assert sample.row == rows["messages"]


def test_other_scalar_columns_stay_and_others_do_not(folder, write, turns):
    row = {"id": 7, "messages": turns("Q", "A"), "n": 3, "f": 0.5, "b": True, "none": None, "list": [1], "object": {}}
    (sample,) = read(write("json", folder / "data.json", [row]))
    assert sample.columns == {"id": 7, "n": 3, "f": 0.5, "b": True, "none": None}


def test_a_file_is_what_its_content_says(folder, write, turns):
    rows = [{"messages": turns("Q", "A")}]
    assert detect(write("jsonl", folder / "wrong.json", rows)).container == "jsonl"
    assert detect(write("parquet", folder / "wrong.json", rows)).container == "parquet"
    bom = folder / "bom.json"
    bom.write_text("\ufeff" + json.dumps(rows), encoding="utf-8")
    assert [type(row) for row in read(bom)] == [Sample]


def test_what_is_no_data_is_refused_at_once(folder, write, turns, from_value):
    def refused(source, match, **options):
        with pytest.raises(InputError, match=match):
            read(source, **options)

    empty = folder / "empty.json"
    empty.write_text("")
    refused(folder / "absent.json", "does not exist")
    refused([], "no data was given")
    refused(3, "type int was given")
    refused(empty, "is empty")
    refused(folder / "red.png", "begins with")
    refused(folder / "below", "no data folder.*blue.jpg")
    refused(write("json", folder / "none.json", []), "holds no rows")
    refused(write("json", folder / "keys.json", [{"ask": "Q", "tell": "A"}]), "found ask, tell.*format=")
    both = [{"messages": turns("Q", "A"), "conversations": from_value("Q", "A")}]
    refused(write("json", folder / "both.json", both), "could be llava or messages.*format=")
    good = write("json", folder / "good.json", [{"messages": turns("Q", "A")}])
    refused(good, "format 'chatml' is unknown", format="chatml")
    refused(good, "image folder .* does not exist", images=folder / "absent")
    refused(good, "has no splits", split="train")
    (folder / "data.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00" + bytes(20))
    refused(folder / "data.jsonl.gz", "is damaged or cut off")
    saved = folder / "saved"
    saved.mkdir()
    (saved / "state.json").write_text("{}")
    refused(saved, "cannot be loaded as a Hugging Face dataset")


def test_the_kind_is_decided_by_the_first_row_that_has_one(folder, write, turns, from_value):
    rows = [{}, {"messages": turns("Q", "A")}, {"conversations": from_value("Q", "A")}]
    first, second, third = read(write("json", folder / "data.json", rows))
    assert isinstance(first, BadRow)
    assert isinstance(second, Sample)
    assert isinstance(third, Sample)  # by its own columns
    named = list(read(folder / "data.json", format="messages"))
    assert named[2].reason == "messages is missing; expected a list of turns"


def test_reading_is_repeatable(folder, rows, write):
    source = write("jsonl", folder / "data.jsonl", [rows["messages"]] * 5)
    assert list(read(source)) == list(read(source))


@pytest.mark.parametrize("empty", ["train-0", "train-2"])
def test_a_shard_without_rows_goes_with_the_others(tmp_path, empty):
    schema = pa.schema([("prompt", pa.string()), ("completion", pa.string())])
    rows = [{"prompt": "How many?", "completion": str(number)} for number in range(3)]
    for name, its_rows in (("train-1", rows), (empty, [])):
        pq.write_table(pa.Table.from_pylist(its_rows, schema=schema), tmp_path / f"{name}.parquet")
    assert len(list(read(tmp_path))) == 3
    (tmp_path / "train-1.parquet").unlink()
    with pytest.raises(InputError, match="holds no rows"):
        list(read(tmp_path))
