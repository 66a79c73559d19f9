"""Several sets in one epoch: shares exact to the row, each set read from its own folder in its own format."""

import json
import shutil
from pathlib import Path

import pytest
import trained

import vfl
from vfl.errors import InputError
from vfl.models.conversation import encoder_of
from vfl.train.data_config import DataConfig
from vfl.train.preflight.tables import data_text
from vfl.train.recipe import read_recipe
from vfl.train.rows.mixture import rows_of_epoch
from vfl.train.rows.prepare import check_paths, prepare
from vfl.train.rows.table import conversation

ONE = ("image", "text", "turns", "image", "images", "image")
OTHER = ("image", "image")


@pytest.mark.parametrize("strategy", ["all_exhausted", "first_exhausted"])
@pytest.mark.parametrize(
    ("sizes", "weights"),
    [((600, 20), (0.8, 0.2)), ((7, 5, 3), (1, 2, 3)), ((10, 10), (3, 3)), ((1, 999), (1e-3, 1)), ((3, 4), (1e6, 1e7))],
)
def test_shares_are_exact_to_the_row(sizes, weights, strategy):
    chosen = rows_of_epoch(sizes, weights, 3, strategy)
    assert chosen == rows_of_epoch(sizes, weights, 3, strategy)
    total = sum(map(len, chosen))
    for size, weight, rows in zip(sizes, weights, chosen, strict=True):
        assert abs(len(rows) - total * weight / sum(weights)) <= max(1, len(sizes) / 2)
        counts = [rows.count(n) for n in range(size)]
        assert max(counts) - min(counts) <= 1, "no row comes again before all have come"
    whole = [sorted(rows) == list(range(size)) for size, rows in zip(sizes, chosen, strict=True)]
    assert any(whole), "of the set that decides how long an epoch is each row comes once"
    if strategy == "all_exhausted":
        assert all(len(set(rows)) == size for size, rows in zip(sizes, chosen, strict=True))
    else:
        assert all(len(rows) <= size for size, rows in zip(sizes, chosen, strict=True))


@pytest.mark.parametrize("strategy", ["all_exhausted", "first_exhausted"])
@pytest.mark.parametrize("weight", [1, 0.3, 1e9])
def test_one_set_of_any_weight_is_the_set(strategy, weight):
    assert rows_of_epoch([11], [weight], 0, strategy) == [list(range(11))]
    assert rows_of_epoch([11, 5], None, 0, strategy) == [list(range(11)), list(range(5))]


def test_another_seed_draws_other_rows_of_the_sets_that_do_not_come_whole():
    chosen = [rows_of_epoch([1000, 300], [1, 1], seed, "first_exhausted") for seed in (0, 1)]
    assert chosen[0][0] != chosen[1][0]
    assert chosen[0][1] == chosen[1][1] == list(range(300))


def test_a_set_that_comes_very_often_is_warned_of(caplog):
    rows_of_epoch([10_000, 5], [1, 1], 0)
    assert "set 2 of data.train has 5 rows, each of which comes 2000 times" in caplog.text


@pytest.fixture(scope="module")
def encoder(qwen):
    return encoder_of(vfl.load(qwen, device="cpu"))


@pytest.fixture(scope="module")
def other(data_of, tmp_path_factory):
    """Rows in LLaVA's form, in an image column of their own, apart from their pictures."""
    folder = tmp_path_factory.mktemp("other")
    shutil.copytree(data_of(*OTHER).parent, folder / "pictures")
    rows = [json.loads(line) for line in data_of(*OTHER).read_text().splitlines()]
    turns = [("human", f"<image>\n{trained.QUESTION}"), ("gpt", "two dogs")]
    conversation = [{"from": who, "value": text} for who, text in turns]
    llava = [{"id": n, "photo": row["images"][0], "conversations": conversation} for n, row in enumerate(rows)]
    (folder / "other.json").write_text(json.dumps(llava))
    return {"path": str(folder / "other.json"), "images": str(folder / "pictures"), "image_column": "photo"}


def prepared(encoder, train, **more):
    return prepare(DataConfig.model_validate({"train": train, **more}), encoder, method="sft", progress=False)


def test_each_set_is_read_by_its_own_settings_and_counted(encoder, data_of, other):
    one = {"path": str(data_of(*ONE)), "weight": 3}
    whole = prepared(encoder, [str(data_of(*ONE)), other])
    assert len(whole.rows) == whole.facts.new == whole.facts.used == 8
    mixed = prepared(encoder, [one, {**other, "format": "llava", "weight": 3}])
    assert [len(mixed.rows), mixed.facts.used, mixed.facts.new] == [12, 8, 12]
    assert [row["uid"] for row in mixed.rows][-6:].count("0") == 3
    assert list(whole.rows) == [row for n, row in enumerate(mixed.rows) if n < 8]
    assert [a + b for a, b in zip(mixed.text, mixed.image, strict=True)] == list(mixed.rows["length"])
    assert all(conversation(row) for row in mixed.rows), "all pictures open"
    text = data_text(mixed.facts)
    assert f"6 rows of {one['path']} in each epoch, 50.0% of it (once each)" in text
    assert f"6 rows of {other['path']} in each epoch, 50.0% of it (3 times its 2)" in text
    alone = prepared(encoder, [{**one, "weight": 0.01}])
    plain = prepared(encoder, str(data_of(*ONE)))
    assert (list(alone.rows), alone.text, alone.image, alone.facts) == (
        list(plain.rows),
        plain.text,
        plain.image,
        plain.facts,
    )


def test_rows_that_cannot_be_used_are_told_of_all_sets(encoder, data_of, other, tmp_path):
    broken = data_of(*ONE).with_name("broken.jsonl")
    broken.write_text(data_of(*ONE).read_text().replace("0-0.png", "gone.png"))
    lost = json.loads(Path(other["path"]).read_text())
    lost[1]["photo"] = "lost.png"
    (tmp_path / "lost.json").write_text(json.dumps(lost))
    train = [str(broken), {**other, "path": str(tmp_path / "lost.json")}]
    with pytest.raises(InputError, match=r"2 of 8 rows.*gone\.png.*lost\.png"):
        prepared(encoder, train)
    assert prepared(encoder, train, on_bad_row="skip").facts.bad == 2


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"train": [{"path": "a", "weight": 2}, "b"]}, "give each set a weight"),
        ({"train": [{"path": "a", "weight": 0}]}, "train.0.weight.*greater than 0"),
        ({"train": [{"path": "a", "weight": "inf"}]}, "train.0.weight.*finite"),
        ({"train": [{"path": []}]}, "train.0.path.*at least 1"),
        ({"train": [{"path": "a", "image": "b"}]}, "did you mean 'images'|images"),
        ({"train": ["a", "b"], "stopping_strategy": "first_exhausted"}, "no set of train has one"),
        ({"train": 5}, "data.train"),
    ],
)
def test_what_cannot_be_meant(data, said):
    with pytest.raises(InputError, match=said):
        read_recipe({"out": "run", "layers": [1], "data": data})


def test_what_is_not_there_is_named(tmp_path, data_of):
    for source in ({"path": "none.jsonl"}, {"path": str(data_of(*ONE)), "images": str(tmp_path / "none")}):
        with pytest.raises(InputError, match="none"):
            check_paths(DataConfig.model_validate({"train": ["a", source][1:]}))


def test_a_saved_recipe_is_the_recipe():
    for train in (
        "a,b.jsonl",
        ["a", "b"],
        ["a", {"path": ["b", "c"], "images": "d"}, "e"],
        [{"path": "a", "weight": 2}],
    ):
        recipe = read_recipe({"out": "run", "layers": [1], "data": {"train": train, "images": "all"}})
        saved = recipe.model_dump(mode="json", by_alias=True)
        assert read_recipe(saved) == recipe
    assert read_recipe({"out": "run", "layers": [1], "data": {"train": ["a", "b"]}}).model_dump()["data"]["train"] == [
        "a",
        "b",
    ]
