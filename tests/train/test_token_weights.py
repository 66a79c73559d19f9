"""Token weights in training: the loss is a mean over the tokens of weight 1, from scores to a resumed run."""

import json

import faulted
import pyarrow.parquet as pq
import pytest
import torch
import trained
import warm

import vfl
from vfl.data import read
from vfl.data.token_weights import TOKEN_WEIGHTS, answer_hash, row_digest, weights_table
from vfl.errors import InputError
from vfl.models.conversation import encoder_of
from vfl.train.assemble import assemble
from vfl.train.data_config import DataConfig
from vfl.train.recipe import Recipe
from vfl.train.rows.collate import Collator
from vfl.train.rows.prepare import prepare
from vfl.train.rows.table import conversation
from vfl.train.rows.weights import warn_of_unused

KINDS = ("image", "text", "turns", "images", "image")


@pytest.fixture(scope="module")
def vlm(qwen):
    return vfl.load(qwen, device="cpu")


@pytest.fixture(scope="module")
def plain(vlm, data_of):
    """The rows without weights, and their answers' tokens."""
    config = DataConfig(train=(data_of(*KINDS),))
    rows = prepare(config, encoder_of(vlm), method="sft", progress=False).rows
    batch = Collator(encoder_of(vlm))(list(rows))
    return list(rows), [ids[ids != -100].tolist() for ids in batch["labels"]]


@pytest.fixture(scope="module")
def write(plain, data_of, tmp_path_factory):
    """write(weights of a row by its tokens) -> a file of weights for all rows, and the weights."""

    def written(weigh, tokens=answer_hash):
        weights = [[int(weigh(row, place)) for place in range(len(ids))] for row, ids in enumerate(plain[1])]
        names = [row_digest(sample) for sample in read(data_of(*KINDS))]
        path = tmp_path_factory.mktemp("weights") / TOKEN_WEIGHTS
        pq.write_table(weights_table(names, [tokens(ids) for ids in plain[1]], weights), path)
        return path, weights

    return written


def every_other(row, place):
    return (row + place) % 2 == 0


def rows_with(vlm, data_of, weights, **config):
    settings = DataConfig(train=(data_of(*KINDS),), token_weights=weights, **config)
    return prepare(settings, encoder_of(vlm), method="sft", progress=False)


def test_labels_are_the_tokens_of_weight_one_in_any_batch(vlm, data_of, write, plain):
    path, weights = write(every_other)
    prepared = rows_with(vlm, data_of, path)
    assert prepared.facts.weighed == pytest.approx(sum(map(sum, weights)) / sum(map(len, weights)))
    collator = Collator(encoder_of(vlm), show_always=True)
    for some in ([0, 1, 2, 3, 4], [2], [1], [4, 1, 2]):  # alone, padded, of text with a blank image beside, in turns
        batch = collator([prepared.rows[n] for n in some])
        whole = collator([plain[0][n] for n in some])
        for row, n in enumerate(some):
            answers = whole["labels"][row] != -100
            assert (batch["labels"][row][answers] != -100).int().tolist() == weights[n]
            assert (batch["labels"][row][~answers] == -100).all()
        assert (batch["labels"][len(some) :] == -100).all()


def test_the_loss_is_the_weighted_mean(qwen, data_of, write, tmp_path):
    path, _ = write(every_other)
    data = data_of(*KINDS)
    changed = {"data": {"token_weights": str(path)}, "dtype": "float64"}
    parts = assemble(Recipe.model_validate(trained.settings(qwen, data, tmp_path / "run", **changed)), progress=False)
    trainer, rows = parts.trainer, parts.prepared.rows
    trainer.model.eval()
    batches = [trainer.data_collator([rows[n] for n in some]) for some in ([0, 1], [2, 3], [4])]
    names = [row_digest(sample) for sample in read(data)]
    by_row = dict(zip(names, pq.read_table(path)["weights"].to_pylist(), strict=True))
    weighted = total = 0.0
    with torch.no_grad():
        for some, batch in zip(([0, 1], [2, 3], [4]), batches, strict=True):
            inputs = {name: value for name, value in batch.items() if name != "labels"}
            logprobs = trainer.model(**inputs).logits.double().log_softmax(-1)
            turns = [conversation(rows[n]) for n in some]
            answers = encoder_of(parts.vlm).encode(turns, [rows[n]["prompt"] for n in some]).answers
            for row, n in enumerate(some):
                places = answers[row].nonzero()[:, 0]
                losses = -logprobs[row, places - 1].gather(1, batch["input_ids"][row, places, None])[:, 0]
                own = torch.tensor(by_row[names[n]], dtype=torch.float64)
                weighted, total = weighted + float((own * losses).sum()), total + float(own.sum())
        # a step over accumulated batches, as Trainer takes it: one mean over all of its tokens
        count = trainer._get_num_items_in_batch(batches, "cpu")
        step = sum(float(trainer.compute_loss(trainer.model, dict(b), num_items_in_batch=count)) for b in batches)
    assert int(count) == total
    assert step == pytest.approx(weighted / total, rel=1e-6)


def test_weights_of_one_change_nothing(qwen, data_of, write, run, tmp_path):
    path, _ = write(lambda row, place: True)
    run(qwen, data_of(*KINDS), tmp_path / "plain")
    run(qwen, data_of(*KINDS), tmp_path / "ones", data={"token_weights": str(path)})
    assert trained.same(trained.weights(tmp_path / "plain"), trained.weights(tmp_path / "ones"))
    assert trained.losses(tmp_path / "plain") == trained.losses(tmp_path / "ones")


def test_other_tokens_are_refused_in_one_sentence(vlm, data_of, write):
    path, _ = write(every_other, tokens=lambda ids: answer_hash([*ids, 0]))
    with pytest.raises(InputError) as caught:
        rows_with(vlm, data_of, path, on_bad_row="skip")
    assert "were made for other tokens than this model's tokenizer" in str(caught.value)
    assert str(caught.value).count("other tokens") == 1


def test_rows_that_have_none_or_learn_nothing_are_bad_rows(vlm, data_of, write):
    path, _ = write(lambda row, place: row != 3)
    with pytest.raises(InputError, match=r"line 4 .*none of its answers' tokens has a weight"):
        rows_with(vlm, data_of, path)
    assert len(rows_with(vlm, data_of, path, on_bad_row="skip").rows) == 4
    pq.write_table(pq.read_table(path)[:2], path)  # and what was prepared before is not taken for it
    with pytest.raises(InputError, match=r"3 of 5 rows can't be used.*has no token weights for it"):
        rows_with(vlm, data_of, path)


def test_what_can_not_be_weighed_is_refused(qwen, data_of, run, write, tmp_path):
    with pytest.raises(InputError, match=r"no file .*nowhere\.parquet \(data\.token_weights\)"):
        run(qwen, data_of("image"), tmp_path / "a", data={"token_weights": str(tmp_path / "nowhere.parquet")})
    with pytest.raises(InputError, match="use method: sft"):
        run(qwen, data_of("pair"), tmp_path / "b", data={"token_weights": str(write(every_other)[0])}, method="dpo")


def test_from_scores_to_a_run_that_is_killed_and_resumed(qwen, data_of, run, tmp_path, caplog):
    """The whole way, in processes of their own where it is trained; the killed run ends as the other does."""
    data, subset = data_of(*KINDS * 2), tmp_path / "subset"
    scores = vfl.score(
        data, model=str(qwen), layers={"early": [0]}, out=tmp_path / "scores", device="cpu", progress=False
    )
    parts = pq.read_table(scores.folder / "parts")
    drops = [drop for row in parts["no_image_token_drops"].to_pylist() for drop in row or ()]
    middle = sorted(map(abs, drops))[len(drops) // 2]
    vfl.filter(scores, budget="100%", policy="random", out=subset, token_weights=middle, copy_images=True)
    found = json.loads((subset / "manifest.json").read_text())["token_weights"]
    assert 0 < found["kept"] < found["tokens"]
    rows = subset / "data" / data.name
    settings = {
        "data": {"token_weights": str(subset / TOKEN_WEIGHTS)},
        "lora": {"r": 4, "lora_alpha": 4, "lora_dropout": 0.2},
        "trainer": {"max_steps": 4, "gradient_accumulation_steps": 2, "save_steps": 2},
    }
    recipe = trained.write_recipe(
        tmp_path / "recipe.yaml", trained.settings(qwen, rows, tmp_path / "unused", **settings)
    )
    start = ["train", str(recipe), "out={out}"]
    job = {"start": start, "again": [*start, "--resume"], "result": "report.html", "imports": ["vfl.train.run"]}
    job |= {"folder": str(tmp_path), "seed": 0, "tensors": True, "kinds": ["torn"], "kills": 1, "others": 0, "full": 0}
    (tmp_path / "job.json").write_text(json.dumps(job))
    done = warm.finished([faulted.__file__, str(tmp_path / "job.json")])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert [row["code"] for row in json.loads(done.stdout.splitlines()[-1])["met"]] == [-9, 0]
    assert trained.same(trained.weights(tmp_path / "0"), trained.weights(tmp_path / "whole"))
    warn_of_unused(DataConfig(train=(rows,), token_weights=subset / TOKEN_WEIGHTS))
    assert "is not used" not in caplog.text
    warn_of_unused(DataConfig(train=(rows,)))
    assert "token-weights.parquet is not used: set data.token_weights=" in caplog.text
