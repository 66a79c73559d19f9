"""KTO with images: single answers that are good or bad, and the probabilities that its loss reads."""

import json
import shutil

import pytest
import torch
import trained

import vfl
from vfl.errors import InputError
from vfl.train.assemble import assemble
from vfl.train.recipe import Recipe, read_recipe

KINDS = ("image", "text", "image", "turns")
STEPS = {"max_steps": 6, "per_device_train_batch_size": 2, "learning_rate": 0.02, "save_steps": 3}


@pytest.fixture(scope="module")
def rows(data_of):
    """The label as each tool writes it; the good answers are longer than the bad ones."""
    path = data_of(*KINDS)
    labels = [{"label": True}, {"kto_tag": False}, {"label": 0}, {"label": "true"}]
    lines = [json.loads(line) | label for line, label in zip(path.read_text().splitlines(), labels, strict=True)]
    labelled = path.with_name("labelled.jsonl")
    labelled.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return labelled


def kto(model, rows, out, **changed):
    return trained.settings(model, rows, out, method="kto", **{"trainer": STEPS} | changed)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava"])
def test_the_loss_reads_what_the_model_says_alone(family, tiny_folder, rows, tmp_path):
    """Of a row's answer, and of another row's to its question: for the model, and for its reference."""
    parts = assemble(Recipe.model_validate(kto(tiny_folder(family), rows, tmp_path)), progress=False)
    assert (parts.prepared.facts.desirable, parts.prepared.facts.used) == (2, 4)
    trainer, encoder = parts.trainer, parts.trainer.data_collator.encoder
    taken = [parts.prepared.rows[n] for n in range(4)]
    batch = trainer.data_collator(taken)
    vlm = vfl.load(parts.vlm.model_id, device="cpu")
    from vfl.train.rows.table import conversation

    def alone(turns, prompt):
        encoded = encoder.encode([turns], [prompt])
        answers = encoded.answers[:, 1:]
        with torch.no_grad():
            logits = vlm.model(**encoded.inputs).logits[:, :-1]
        scores = logits.log_softmax(-1).gather(2, encoded.inputs["input_ids"][:, 1:, None])[..., 0]
        return float(scores[answers].sum())

    turns = [conversation(row) for row in taken]
    own = [alone(said, row["prompt"]) for said, row in zip(turns, taken, strict=True)]
    crossed = [alone([*turns[n][:-1], turns[n - 1][-1]], row["prompt"]) for n, row in enumerate(taken)]
    trainer.model.eval()
    with torch.no_grad():
        trainer.compute_loss(trainer.model, dict(batch))
        read = trainer._compute_kl_logps(trainer.model, batch)
    assert read.tolist() == pytest.approx(crossed, rel=1e-4)
    good = [score for score, row in zip(own, taken, strict=True) if row["label"]]
    bad = [score for score, row in zip(own, taken, strict=True) if not row["label"]]
    seen = trainer._metrics["eval"]
    assert seen["logps/chosen"] == [pytest.approx(sum(good) / 2, rel=1e-4)]
    assert seen["logps/rejected"] == [pytest.approx(sum(bad) / 2, rel=1e-4)]
    assert seen["rewards/chosen"] == [pytest.approx(0, abs=1e-4)], "at first the model is its own reference"


@pytest.fixture(scope="module")
def whole(qwen, rows, run, tmp_path_factory):
    out = tmp_path_factory.mktemp("kto") / "run"
    run(qwen, rows, out, method="kto", trainer=STEPS)
    return out


def test_good_answers_become_likelier_and_bad_ones_less(whole):
    lines = [line for line in trained.metric_lines(whole) if "rewards/margins" in line]
    assert lines[-1]["rewards/margins"] > 0.01
    flight = json.loads((whole / "preflight.json").read_text())
    assert flight["method"] == "kto"
    assert flight["audit"]["rows"][0]["answers"][0] in trained.ANSWERS
    assert "2 with a good answer, 2 with a bad one" in (whole / "adapter" / "README.md").read_text()


def test_a_resumed_run_is_one_that_was_not_interrupted(whole, qwen, rows, run, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "adapter")
    shutil.rmtree(out / "checkpoints" / "checkpoint-6")
    (out / "report.html").unlink()
    run(qwen, rows, out, method="kto", trainer=STEPS, how={"resume": True})
    assert trained.same(trained.weights(out), trained.weights(whole))
    assert trained.metric_lines(out) == trained.metric_lines(whole)


def test_rows_that_it_can_not_learn_from_are_refused(qwen, rows, data_of, tmp_path):
    def refused(file, **changed):
        with pytest.raises(InputError) as error:
            assemble(Recipe.model_validate(kto(qwen, file, tmp_path, **changed)), progress=False)
        return str(error.value)

    assert "give a column label with true or false" in refused(data_of("image", "image"))
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    other = rows.with_name("other.jsonl")
    other.write_text("".join(json.dumps(line | {"label": 0.5}) + "\n" for line in lines))
    assert "its label is 0.5; expected true or false" in refused(other)
    other.write_text("".join(json.dumps(line | {"label": False}) + "\n" for line in lines))
    assert "All 4 answers are bad" in refused(other)
    assert "leave a row alone in its batch" in refused(rows, trainer={"per_device_train_batch_size": 3})
    assert "replay rows of its kind" in refused(rows, data={"replay": {"probes": "micro"}})


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"evaluation": {"heldout": "rows.json"}}, "depends on those beside it"),
        ({"layers": {"rule": "gradient", "count": 2}}, "vfl layers"),
        ({"data": {"train": "rows.json", "token_weights": "w.parquet"}}, "good and bad ones"),
        ({"protect": {"how": "kl", "functions": ["ocr"], "anchors": {"probes": "micro"}}}, r"trainer\.beta"),
        ({"backward": "after_image"}, "backward: after_image"),
    ],
)
def test_what_kto_can_not_do_is_refused_in_a_sentence(changed, named):
    with pytest.raises(InputError, match=named):
        read_recipe({"out": "run", "layers": [1], "data": {"train": "rows.json"}, "method": "kto"} | changed)
