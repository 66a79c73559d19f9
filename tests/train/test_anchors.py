"""Anchors: the KL term is the naive one, nothing at the first step, and a killed run goes on with the same."""

import json
import shutil

import pytest
import torch
import trained
from trl import SFTTrainer

from vfl.errors import InputError
from vfl.train.anchors import AnchoredLoss
from vfl.train.assemble import assemble
from vfl.train.preflight.facts import Preflight
from vfl.train.preflight.tables import data_text
from vfl.train.recipe import Recipe
from vfl.train.report.log import read_log
from vfl.train.rows.table import ANCHOR, conversation

NEW = ("image", "text", "turns", "images", "image", "image")
OLD = ("text", "image", "turns", "image")
BETA = 3.0
EPOCHS = {"max_steps": -1, "num_train_epochs": 2, "gradient_accumulation_steps": 2, "save_steps": 1}


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    return trained.write_data(tmp_path_factory.mktemp("old"), OLD)


def held(old, **changed):
    """A recipe's `protect`: four of ten rows are anchors."""
    return {"how": "kl", "beta": BETA, "anchors": {"data": str(old), "share": 0.4}, **changed}


def recipe_of(model, rows, out, **changed):
    return Recipe.model_validate(trained.settings(model, rows, out, **changed))


def loss_of(parts, batch, count):
    return parts.trainer.compute_loss(parts.peft_model, dict(batch), num_items_in_batch=count)


def gradients(parts, loss):
    parts.peft_model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: value.grad.clone() for name, value in parts.peft_model.named_parameters() if value.requires_grad}


def log_probs(parts, row):
    """(N,) of an answer's tokens and (N, V) of all, by the model's own logits, without any other row."""
    batch = parts.trainer.data_collator.encoder.encode([conversation(row)], [row["prompt"]])
    answers = batch.answers[0, 1:]
    every = parts.peft_model(**batch.inputs).logits[0, :-1].log_softmax(-1)[answers]
    return every[torch.arange(len(every)), batch.inputs["input_ids"][0, 1:][answers]], every


def test_it_is_the_naive_term_and_at_first_nothing(qwen, data_of, old, tmp_path):
    changed = {"dtype": "float64", "protect": held(old), "trainer": {"per_device_train_batch_size": 10}}
    parts = assemble(recipe_of(qwen, data_of(*NEW), tmp_path, **changed), progress=False)
    (batch,) = parts.trainer.get_train_dataloader()
    anchors = batch["anchors"] >= 0
    assert sorted(batch["anchors"].tolist()) == [-1] * 6 + [0, 1, 2, 3]
    count = (batch["labels"][:, 1:] != -100).sum()

    parts.peft_model.train()
    new = {name: values for name, values in batch.items() if name != "anchors"}
    new["labels"] = new["labels"].masked_fill(anchors[:, None], -100)
    whole, plain = loss_of(parts, batch, count), loss_of(parts, new, count)
    assert float(whole.detach()) == pytest.approx(float(plain.detach()), abs=1e-12)
    with_term, without = gradients(parts, whole), gradients(parts, plain)
    assert max(gradient.abs().max() for gradient in without.values()) > 1e-3
    assert all((with_term[name] - without[name]).abs().max() < 1e-12 for name in without)
    assert parts.trainer._metrics["train"]["kl"] == [pytest.approx(0, abs=1e-12)]

    generator = torch.Generator().manual_seed(0)
    for parameter in parts.peft_model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    rows = [parts.prepared.rows[n] for n in range(10)]
    learned = nats = 0.0
    with torch.no_grad():
        for row in rows:
            now, all_now = log_probs(parts, row)
            with parts.peft_model.disable_adapter():
                _, base = log_probs(parts, row)
            learned -= float(now.sum()) * (row[ANCHOR] < 0)
            nats += float((base.exp() * (base - all_now)).sum()) * (row[ANCHOR] >= 0)
    expected = (learned + BETA * nats) / int(count)
    assert BETA * nats > 0.1 * learned
    assert float(loss_of(parts, batch, count).detach()) == pytest.approx(expected, rel=1e-6)
    # In parts, some without an anchor and some of anchors alone, it is the same, and nothing is measured of no token.
    total = 0.0
    for numbers in ([0, 1], [2, 3, 4, 5, 6], [7], [8, 9]):
        parts.trainer._metrics["train"].clear()
        some = parts.trainer.data_collator([rows[n] for n in numbers])
        total += float(loss_of(parts, some, count).detach())
        assert set(parts.trainer._metrics["train"]) - {"num_tokens"} == (
            ({"kl"} if max(numbers) > 5 else set())
            | ({"entropy", "mean_token_accuracy"} if min(numbers) < 6 else set())
        )
    assert total == pytest.approx(expected, rel=1e-6)


def without_the_term(self, model, inputs, return_outputs=False, num_items_in_batch=None):
    """TRL's own loss, to which the anchors' tokens are none."""
    anchors = inputs.pop("anchors") >= 0
    labels = inputs["labels"].masked_fill(anchors[:, None], -100)
    return SFTTrainer.compute_loss(self, model, {**inputs, "labels": labels}, num_items_in_batch=num_items_in_batch)


def test_of_weight_zero_it_changes_no_bit(qwen, data_of, old, run, tmp_path, monkeypatch):
    lora = {"r": 4, "lora_alpha": 4, "lora_dropout": 0.2}
    settings = {"protect": held(old, beta=0), "lora": lora, "trainer": {"gradient_accumulation_steps": 2}}
    run(qwen, data_of(*NEW), tmp_path / "zero", **settings)
    monkeypatch.setattr(AnchoredLoss, "compute_loss", without_the_term)
    run(qwen, data_of(*NEW), tmp_path / "plain", **settings)
    assert trained.same(trained.weights(tmp_path / "zero"), trained.weights(tmp_path / "plain"))
    divergences = [numbers["kl"] for _, numbers in read_log(tmp_path / "zero" / "metrics.jsonl").train[:2]]
    assert divergences[0] < 1e-6 < divergences[1], "it is measured all the same"


def test_an_interrupted_run_ends_with_the_same_weights(qwen, data_of, old, run, tmp_path):
    """Stopped in its second epoch; what the run says of its anchors is looked at beside."""
    protect = held(old, functions=["counting"], map=str(trained.map_of(qwen, tmp_path)))
    lora = {"r": 4, "lora_alpha": 4, "lora_dropout": 0.2}
    out = tmp_path / "run"
    settings = {"protect": protect, "lora": lora, "trainer": EPOCHS | {"save_total_limit": 3}}
    run(qwen, data_of(*NEW), out, **settings)
    whole = trained.weights(out)
    assert [folder.name for folder in sorted((out / "checkpoints").iterdir())] == [f"checkpoint-{n}" for n in (4, 5, 6)]
    for step in (5, 6):
        shutil.rmtree(out / "checkpoints" / f"checkpoint-{step}")
    (out / "report.html").unlink()
    run(qwen, data_of(*NEW), out, how={"resume": True}, **settings)
    assert trained.same(trained.weights(out), whole)

    flight = Preflight.load(out / "preflight.json")
    assert flight.data.anchors == 4
    assert flight.launch.rows == 10
    assert "4 anchor rows in each epoch, 40.0% of it" in data_text(flight.data)
    said = "the answers to anchor rows of counting (read at layers 2–4) are held to those of the base model"
    assert flight.arm.protected == f"{said} by a KL term of weight 3"
    for file in ("report.html", "adapter/README.md"):
        text = (out / file).read_text().replace("\\", "")
        assert said in text
        assert "4 anchor rows" in text
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "kl" in line] == [1, 2, 3, 4, 5, 6]


def test_anchors_are_drawn_from_pairs_beside_rows_to_replay(qwen, data_of, old, tmp_path):
    """Each has its share of all rows to the row, and a rule for the layers reads the new ones alone."""
    pairs = {"probes": "micro", "pairs": 1, "share": 0.3}
    changed = {
        "protect": held(old, functions="counting,ocr", anchors=pairs),
        "data": {"replay": {"data": str(old), "share": 0.1}},
        "layers": {"rule": "gradient", "count": 2},
    }
    parts = assemble(recipe_of(qwen, data_of(*NEW), tmp_path, **changed), progress=False)
    assert (parts.prepared.facts.replay, parts.prepared.facts.anchors, len(parts.prepared.rows)) == (1, 3, 10)
    assert [number >= 0 for number in parts.prepared.rows[ANCHOR]] == [False] * 7 + [True] * 3
    assert all("counting" in uid or "ocr" in uid for uid in parts.prepared.rows["uid"][7:])
    assert parts.decision.rows == 6


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"protect": {"how": "kl", "functions": "ocr"}}, "needs anchors"),
        ({"protect": {"how": "kl", "anchors": {"probes": "micro"}}}, "functions is empty"),
        ({"protect": {"how": "freeze", "functions": "ocr"}}, "needs a map"),
        ({"protect": {"functions": "ocr", "map": "m", "anchors": {"probes": "micro"}}}, "are for how: kl"),
        ({"method": "dpo"}, "method: sft"),
        ({"lora": {"init_lora_weights": "pissa"}}, "'pissa' changes the weights"),
        ({"lora": {"bias": "lora_only"}}, "'lora_only' changes the weights"),
        ({"data": {"replay": {"probes": "micro", "share": 0.6}}}, "no row is new"),
    ],
)
def test_what_cannot_be_meant(changed, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        recipe_of("m", "rows.json", tmp_path, **{"protect": held("old.json"), **changed})


def test_a_trained_head_is_refused(qwen, data_of, old, tmp_path):
    parts = assemble(recipe_of(qwen, data_of(*NEW), tmp_path, protect=held(old)), progress=False)
    parts.vlm.parts.head.weight.requires_grad_(True)
    with pytest.raises(InputError, match="output head as it was"):
        parts.trainer.anchors.measure(parts.trainer)
