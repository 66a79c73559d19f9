"""Old rows among the new ones: the share of an epoch to the row, the same ones every time, also after a kill."""

import json
import shutil
from pathlib import Path

import pytest
import trained

from vfl.errors import InputError
from vfl.train.assemble import assemble
from vfl.train.preflight.facts import Preflight
from vfl.train.preflight.tables import data_text
from vfl.train.recipe import Recipe
from vfl.train.rows.replay_rows import replayed, replayed_in_halves

NEW = ("image", "text", "turns", "images", "image", "image", "image", "image", "image")
OLD = ("text", "image", "image", "text")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize(("new", "pool"), [(9, 4), (100, 7), (1000, 5000), (1, 1)])
def test_the_share_is_exact_to_the_row(new, pool, share):
    rows = replayed(new, pool, share, seed=3)
    assert set(rows) <= set(range(pool))
    assert abs(len(rows) - new * share / (1 - share)) <= 0.5 or len(rows) == 1
    assert rows == replayed(new, pool, share, seed=3)
    counts = [rows.count(n) for n in range(pool)]
    assert max(counts) - min(counts) <= 1, "no row comes again before the pool is through"


def test_another_seed_draws_other_rows():
    assert replayed(100, 1000, 0.1, seed=0) != replayed(100, 1000, 0.1, seed=1)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_half_of_the_old_rows_are_favoured_ones(share):
    favoured = [n % 4 == 0 for n in range(1000)]
    rows = replayed_in_halves(900, favoured, share, seed=0, others=0.1)
    assert abs(len(rows) - 900 * share / (0.9 - share)) <= 1
    assert abs(2 * sum(favoured[n] for n in rows) - len(rows)) <= 1
    assert rows == replayed_in_halves(900, favoured, share, seed=0, others=0.1)
    for alike in ([True] * 10, [False] * 10):
        with pytest.raises(InputError, match=r"no halves.*Leave favour out"):
            replayed_in_halves(90, alike, share, seed=0)


@pytest.mark.parametrize(("pool", "share"), [(0, 0.1), (5, 0.0), (5, 1.0)])
def test_nothing_to_replay_is_refused(pool, share):
    with pytest.raises(InputError, match=r"data\.replay"):
        replayed(10, pool, share, seed=0)


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    return trained.write_data(tmp_path_factory.mktemp("old"), OLD)


def recipe_of(model, rows, out, **changed):
    return Recipe.model_validate(trained.settings(model, rows, out, **changed))


def test_every_epoch_holds_all_new_rows_and_the_share_of_old_ones(qwen, data_of, old, tmp_path):
    replay = {"data": str(old), "share": 0.25}
    changed = {"data": {"replay": replay}, "trainer": {"max_steps": -1, "num_train_epochs": 2}}
    parts = assemble(recipe_of(qwen, data_of(*NEW), tmp_path, **changed), progress=False)
    new, chosen = len(NEW), len(parts.prepared.rows) - len(NEW)
    assert chosen == parts.prepared.facts.replay == 3
    assert chosen / (new + chosen) == 0.25
    # A question as tokens tells rows apart only with their pictures: count what each epoch's batches hold.
    loader = parts.trainer.get_train_dataloader()
    seen = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        seen.append(sum(len(batch["labels"]) for batch in loader))
    assert seen == [new + chosen] * 2
    where = parts.prepared.rows["where"]
    assert all(str(data_of(*NEW).parent) not in text for text in where[new:])
    assert "3 old rows replayed in each epoch, 25.0% of it" in data_text(parts.prepared.facts)
    assert any(str(old) in name for name in parts.prepared.facts.files)


def test_probes_are_replayed_with_their_right_answers(qwen, data_of, tmp_path, cache):
    replay = {"probes": "micro", "functions": ["counting", "ocr"], "pairs": 2, "share": 0.4, "favour": "ocr"}
    parts = assemble(recipe_of(qwen, data_of(*NEW), tmp_path, data={"replay": replay}), progress=False)
    assert parts.prepared.facts.replay == 6
    assert [uid.split("-")[0] for uid in parts.prepared.rows["uid"][len(NEW) :]] == ["ocr"] * 3 + ["counting"] * 3
    with pytest.raises(InputError, match=r"data\.replay\.favour names 'place'; the old rows are of counting, ocr"):
        assemble(
            recipe_of(qwen, data_of(*NEW), tmp_path / "b", data={"replay": replay | {"favour": "place"}}),
            progress=False,
        )
    (file,) = (path for path in map(Path, parts.prepared.facts.files) if path.is_relative_to(cache))
    written = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(written) == 2 * 2 * 2
    assert all(row["completion"][0]["content"] for row in written)


@pytest.mark.parametrize(
    ("replay", "said"),
    [
        ({"share": 0.1}, "give one of the two"),
        ({"data": "x", "probes": "micro"}, "give one of the two"),
        ({"probes": "micro", "share": 1.0}, "less than 1"),
        ({"probes": "micro", "shar": 0.1}, "Extra"),
        ({"data": "x", "favour": "ocr"}, "functions of probes"),
    ],
)
def test_what_cannot_be_meant(replay, said, qwen, data_of, tmp_path):
    with pytest.raises(ValueError, match=said):
        recipe_of(qwen, data_of(*NEW), tmp_path, data={"replay": replay})


def test_missing_data_is_named(qwen, data_of, tmp_path):
    replay = {"data": str(tmp_path / "none.jsonl")}
    with pytest.raises(InputError, match=r"none.jsonl \(data.replay.data\)"):
        assemble(recipe_of(qwen, data_of(*NEW), tmp_path, data={"replay": replay}), progress=False)


def test_preference_pairs_replay_no_probes(qwen, data_of, tmp_path):
    recipe = recipe_of(qwen, data_of("pair"), tmp_path, method="dpo", data={"replay": {"probes": "micro"}})
    with pytest.raises(InputError, match="replay rows of its kind"):
        assemble(recipe, progress=False)


def test_an_interrupted_run_with_replay_ends_with_the_same_weights(qwen, data_of, old, run, tmp_path):
    """Two epochs of two sets and old rows, stopped after the first's last step and resumed: the run nobody stopped."""
    new = [{"path": str(data_of(*NEW[:4])), "weight": 2}, {"path": str(data_of(*NEW[4:6])), "weight": 2.5}]
    settings = {
        "data": {"train": new, "replay": {"data": str(old), "share": 0.25}},
        "layers": {"rule": "gradient", "count": 2},
        "lora": {"r": 4, "lora_alpha": 4, "lora_dropout": 0.2},
        "trainer": {"max_steps": -1, "num_train_epochs": 2, "save_steps": 5, "save_total_limit": 4},
    }
    whole = run(qwen, data_of(*NEW), tmp_path / "whole", **settings).folder
    out = Path(shutil.copytree(whole, tmp_path / "cut" / "run"))
    for late in ("checkpoint-10", "checkpoint-12"):
        shutil.rmtree(out / "checkpoints" / late)
    (out / "report.html").unlink()
    run(qwen, data_of(*NEW), out, how={"resume": True}, **settings)
    assert trained.same(trained.weights(out), trained.weights(whole))
    flight = Preflight.load(out / "preflight.json")
    assert flight.data.replay == 3
    assert [each.drawn for each in flight.data.sets] == [4, 5]
    card = (out / "adapter" / "README.md").read_text()
    assert "old rows replayed" in card
    assert "2.5 times its 2" in card
    assert "rule gradient" in (out / "adapter" / "README.md").read_text()
