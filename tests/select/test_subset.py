"""Subsets: the chosen rows as they came, with what they were chosen by, whole or not at all."""

import json

import datasets
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_scores import FUNCTIONS, row, table, write_scores
from figures import dots_of, drawn
from PIL import Image

import vfl
from vfl.data import read
from vfl.data.token_weights import TokenWeights
from vfl.errors import InputError
from vfl.select.choose.filtering import ChoiceConfig, choose, chosen_uids
from vfl.select.report.page import write_selection_report
from vfl.select.shards.score_folder import database, open_scores


@pytest.fixture
def data(tmp_path):
    """data.json: 40 LLaVA rows with images, and some text, whose uids are their ids."""
    folder = tmp_path / "in"
    (folder / "pictures").mkdir(parents=True)
    rows = []
    for n in range(40):
        turns = [{"from": "human", "value": f"<image>\nQuestion {n}?"}, {"from": "gpt", "value": f"Answer {n}"}]
        rows.append({"id": f"id{n}", "conversations": turns, "unread": {"n": [n, 1.5, None]}})
        if n % 10 == 9:
            turns[0]["value"] = f"Question {n}?"
        else:
            rows[-1]["image"] = f"pictures/{n}.png"
            Image.new("RGB", (8, 8), (n, 0, 0)).save(folder / rows[-1]["image"])
    (folder / "data.json").write_text(json.dumps(rows))
    return folder / "data.json", rows


@pytest.fixture
def scores(data, tmp_path):
    path, rows = data
    made = [
        row(n, uid=one["id"], kind="vision" if "image" in one else "text", drops={FUNCTIONS[n % 4]: n / 40},
            solved=n % 5 > 0, logprobs={FUNCTIONS[n % 4]: 1.0})
        for n, one in enumerate(rows)
    ]  # fmt: skip
    return write_scores(tmp_path / "scores", made, settings={"data": [str(path)], "images": None})


def test_a_subset_has_all_its_parts(scores, data, tmp_path):
    path, rows = data
    subset = vfl.filter(scores, path, budget=12, policy="quota", out=tmp_path / "subset", seed=3)
    out = subset.folder
    assert vfl.Subset.load(subset) == subset
    assert repr(subset) == f"Subset({out}: 12 of 40 rows)"
    (axes,) = drawn(subset.plot()).axes
    for part, key in (("the data", "rows"), ("the subset", "chosen_rows")):
        counts = [count[key] for count in subset.manifest["counts"]["class"].values()]
        assert dots_of(axes, part) == pytest.approx([100 * count / sum(counts) for count in counts])
    assert {one.name for one in out.iterdir()} == {
        "data", "ids.txt", "scores.parquet", "manifest.json", "settings.yaml", "dataset_info.json"
    }  # fmt: skip
    ids = (out / "ids.txt").read_text().split()
    assert len(ids) == 12
    assert json.loads((out / "data" / "data.json").read_text()) == [one for one in rows if one["id"] in ids]
    found = table(out / "scores.parquet")
    assert list(found) == ids
    assert {one["class"] for one in found.values()} == set(FUNCTIONS)
    assert {"solved", "margin", "score", "z_ocr", "drop_ocr", "text_hash"} <= set(found[ids[0]])
    manifest = json.loads((out / "manifest.json").read_text())
    assert [(one["path"], one["bytes"]) for one in manifest["sources"]] == [(str(path), path.stat().st_size)]
    assert (manifest["model"]["weights_sha256"], manifest["map"]["sha256"]) == ("ab" * 32, "cd" * 32)
    assert (manifest["seed"], manifest["settings"]["policy"], manifest["rows"]) == (3, "quota", 12)
    assert {"python", "vfl", "duckdb", "pyarrow"} <= manifest["versions"].keys()
    classes = manifest["counts"]["class"]
    assert sum(one["chosen_rows"] for one in classes.values()) == 12
    assert sum(one["rows"] for one in classes.values()) == 40
    assert manifest["counts"]["source"]["a"]["chosen_rows"] == 12
    info = json.loads((out / "dataset_info.json").read_text())
    assert info == {
        "data": {
            "file_name": "data/data.json",
            "formatting": "sharegpt",
            "columns": {"messages": "conversations", "images": "image"},
        }
    }


def test_the_data_is_found_where_it_was_scored_and_can_be_read_again(scores, tmp_path):
    out = vfl.filter(scores, budget="30%", out=tmp_path / "subset", copy_images=True).folder
    again = list(read(out / "data"))
    assert [one.uid for one in again] == (out / "ids.txt").read_text().split()
    assert all(image.open().size == (8, 8) for one in again for image in one.images)
    # without the copies the rows still name them in the old folder, which the manifest tells
    plain = vfl.filter(scores, budget="30%", out=tmp_path / "plain").folder
    manifest = json.loads((plain / "manifest.json").read_text())
    assert next(read(plain / "data", images=manifest["images"])).images


def test_the_same_settings_give_the_same_bytes(scores, tmp_path):
    a, b = (vfl.filter(scores, budget="30%", policy="random", out=tmp_path / name).folder for name in "ab")
    for name in ("ids.txt", "data/data.json", "manifest.json", "scores.parquet"):
        assert (a / name).read_bytes() == (b / name).read_bytes()


def test_datasets_in_and_out(scores, data):
    _, rows = data
    dataset = datasets.Dataset.from_list(
        [{key: one.get(key) for key in ("id", "image", "conversations")} for one in rows]
    )
    subset = vfl.filter(scores, dataset, budget="20%", images=data[0].parent)
    assert isinstance(subset, datasets.Dataset)
    assert subset.features == dataset.features
    assert len(subset) == 8
    with pytest.raises(InputError, match="save what is returned"):
        vfl.filter(scores, dataset, budget="20%", out="x")


def test_nothing_half_written_stays(scores, data, tmp_path):
    path, rows = data
    path.write_text(json.dumps([one | {"id": f"other {n}"} for n, one in enumerate(rows)]))
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError, match="not what was scored"):
        vfl.filter(scores, path, budget="20%", out=tmp_path / "subset")
    assert set(tmp_path.iterdir()) == before


def test_a_picture_that_is_gone_is_said(scores, data, tmp_path):
    path, _ = data
    for file in (path.parent / "pictures").iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"cannot be used now|is not in the data"):
        vfl.filter(scores, path, budget="20%", out=tmp_path / "subset")


def test_results_are_replaced_only_if_asked_and_other_files_never(scores, tmp_path):
    out = vfl.filter(scores, budget=8, out=tmp_path / "subset").folder
    with pytest.raises(InputError, match="--overwrite"):
        vfl.filter(scores, budget=12, out=out)
    vfl.filter(scores, budget=12, out=out, overwrite=True)
    assert len((out / "ids.txt").read_text().split()) == 12
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("a year")
    with pytest.raises(InputError, match="Name another"):
        vfl.filter(scores, budget=12, out=other, overwrite=True)
    assert (other / "thesis.txt").exists()


def test_many_small_parts_are_read_once_and_give_the_same(scores, data, tmp_path, monkeypatch):
    from vfl.select.shards import score_folder as scorefolder

    path, _ = data
    a = vfl.filter(scores, path, budget="40%", out=tmp_path / "a").folder
    monkeypatch.setattr(scorefolder, "MANY_PARTS", 2)
    b = vfl.filter(scores, path, budget="40%", out=tmp_path / "b").folder
    assert (a / "scores.parquet").read_bytes() == (b / "scores.parquet").read_bytes()


def test_what_does_not_fit_is_refused(scores, tmp_path):
    with pytest.raises(InputError, match="needs out"):
        vfl.filter(scores, budget="20%")
    with pytest.raises(InputError, match="unknown key"):
        vfl.filter(scores, budget="20%", out=tmp_path / "x", polciy="top")
    (scores / "manifest.json").write_text(json.dumps({"functions": []}))
    with pytest.raises(InputError, match="give --data"):
        vfl.filter(scores, budget="20%", out=tmp_path / "x")


def test_changed_data_is_refused_with_what_differs(scores, data, tmp_path):
    path, rows = data
    said = path.read_text()
    changed = {
        "same length": (said.replace("Answer 3", "Answer 4"), "data.json has other content"),
        "longer": (said.replace("Answer 3", "Answer 33"), f"bytes, {len(said):,} then"),
        "a row less": (json.dumps(rows[:-1]), f"bytes, {len(said):,} then"),
    }
    for name, (content, reason) in changed.items():
        path.write_text(content)
        for call in (
            lambda name=name: vfl.filter(scores, budget="20%", out=tmp_path / name),
            lambda name=name: write_selection_report(scores, tmp_path / f"{name}.html"),
        ):
            with pytest.raises(InputError, match="not what was scored") as caught:
                call()
            assert reason in str(caught.value)
    path.write_text(said)  # another time, the same data
    vfl.filter(scores, budget="20%", out=tmp_path / "subset")


def test_a_shard_more_or_less_is_named(data, tmp_path):
    path, rows = data
    shards = tmp_path / "shards"
    shards.mkdir()
    for n in range(2):
        (shards / f"part-{n}.json").write_text(json.dumps(rows[20 * n : 20 * n + 20]))
    made = [row(n, uid=stored["id"]) for n, stored in enumerate(rows)]
    scores = write_scores(tmp_path / "scores", made, settings={"data": [str(shards)], "images": str(path.parent)})
    (shards / "README.md").write_text("no data")
    vfl.filter(scores, budget="20%", out=tmp_path / "subset")
    (shards / "part-2.json").write_text(json.dumps(rows[:3]))
    with pytest.raises(InputError, match=r"part-2\.json is there and was not scored"):
        vfl.filter(scores, budget="20%", out=tmp_path / "more")
    (shards / "part-2.json").unlink()
    (shards / "part-0.json").unlink()
    with pytest.raises(InputError, match=r"part-0\.json was scored and is not there"):
        vfl.filter(scores, budget="20%", out=tmp_path / "less")


def test_a_data_set_of_other_length_is_refused(scores, data):
    _, rows = data
    few = datasets.Dataset.from_list(
        [{key: stored.get(key) for key in ("id", "conversations")} for stored in rows[:30]]
    )
    with pytest.raises(InputError, match="40 rows then, 30 now"):
        vfl.filter(scores, few, budget="20%")


def test_a_subset_s_folder_is_data_itself(scores, tmp_path):
    """With its images, which its rows name in the folder that they were in."""
    for copied in (False, True):
        out = vfl.filter(scores, budget="30%", out=tmp_path / f"subset{copied}", copy_images=copied).folder
        again = list(read(out))
        assert [sample.uid for sample in again] == (out / "ids.txt").read_text().split()
        assert all(image.open().size == (8, 8) for sample in again for image in sample.images)


@pytest.mark.parametrize("container", ["json", "parquet"])
def test_token_weights_lie_beside_the_data(scores, data, tmp_path, container):
    path, rows = data
    if container == "parquet":  # images inside, ids left out: rows are known by what they show and say
        path = path.with_name("data.parquet")
        shown = [(path.parent / one["image"]).read_bytes() if "image" in one else None for one in rows]
        turns = [[{"from": t["from"], "value": t["value"]} for t in one["conversations"]] for one in rows]
        held = [None if one is None else {"bytes": one, "path": None} for one in shown]
        pq.write_table(pa.table({"image": held, "conversations": turns}), path)
        made = [
            row(n, uid=sample.uid, kind="vision" if sample.images else "text") for n, sample in enumerate(read(path))
        ]
        scores = write_scores(tmp_path / "more", made, settings={"data": [str(path)]})
    out = vfl.filter(scores, path, budget=15, policy="random", out=tmp_path / "subset", token_weights=0.5).folder
    weights = TokenWeights(out / "token-weights.parquet")
    number = {uid: place for place, uid in enumerate(sample.uid for sample in read(path))}
    chosen = (out / "ids.txt").read_text().split()
    again = list(read(out / "data", images=None if container == "parquet" else path.parent))
    assert len(again) == len(weights.place) == 15
    for uid, sample in zip(chosen, again, strict=True):
        own = weights.of(sample)
        assert own.tokens == f"{number[uid]:016x}"
        assert list(own.weights) == ([0, 0, 1, 1] if sample.images else [1, 1, 1, 1])  # of drops 0, 0.01, -1, 3
    manifest = json.loads((out / "manifest.json").read_text())
    text = sum(not sample.images for sample in again)
    assert manifest["token_weights"] == {"file": "token-weights.parquet", "tokens": 60, "kept": 30 + 2 * text}
    assert manifest["settings"]["token_weights"] == 0.5


def test_rows_of_which_no_token_needs_the_image_are_not_chosen(tmp_path):
    rows = [row(n, no_image_token_drops=np.array([0, 0.2, float("nan"), n / 10], np.float16)) for n in range(20)]
    folder = open_scores(write_scores(tmp_path / "s", rows))
    for policy in ("random", "balanced", "prism"):
        with database() as connection:
            choice = choose(connection, folder, ChoiceConfig(budget="100%", policy=policy, token_weights=1.05))
            assert choice.rows == 9
            assert sorted(chosen_uids(connection))[0] == "u00011"


def test_token_weights_need_scores_that_have_them_and_a_file(scores, data, tmp_path):
    dataset = datasets.Dataset.from_list([{"id": one["id"], "conversations": one["conversations"]} for one in data[1]])
    with pytest.raises(InputError, match=r"a datasets\.Dataset has none"):
        vfl.filter(scores, dataset, budget="20%", token_weights=0.1)
    for file in (scores / "parts").glob("*.parquet"):
        pq.write_table(pq.read_table(file).drop_columns(["no_image_token_drops"]), file)
    with pytest.raises(InputError, match=r"no column no_image_token_drops.*Score again"):
        vfl.filter(scores, budget="20%", out=tmp_path / "subset", token_weights=0.1)
    assert not (tmp_path / "subset").exists()


def test_a_notebook_without_widgets_has_no_bar_to_turn_off(monkeypatch):
    connect = duckdb.connect

    class InANotebook:
        def __init__(self, *arguments, **options):
            self.connection = connect(*arguments, **options)

        def execute(self, statement):
            if "progress_bar" in statement:
                raise duckdb.InvalidInputException("required package 'ipywidgets' is missing")
            return self.connection.execute(statement)

        def close(self):
            self.connection.close()

    monkeypatch.setattr(duckdb, "connect", InANotebook)
    with database() as connection:
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
    with pytest.raises(duckdb.InvalidInputException), database() as connection:
        raise duckdb.InvalidInputException("of something else")
