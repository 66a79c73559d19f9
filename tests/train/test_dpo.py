"""Preference training with images: the reference is the base model, and the chosen answer gains on the rejected one."""

import json

import pytest
import torch
import trained

import vfl
from vfl.models.conversation import encoder_of
from vfl.train.assemble import assemble
from vfl.train.recipe import Recipe
from vfl.train.rows.collate import PreferenceCollator

PAIRS = ("pair", "pair")
STEPS = {"max_steps": 6, "per_device_train_batch_size": 1, "learning_rate": 0.02, "save_strategy": "no"}


def history(parts, name):
    return [entry[name] for entry in parts.trainer.state.log_history if name in entry]


@pytest.fixture(scope="module", params=["qwen2_5_vl", "llava"])
def parts(request, tiny_folder, data_of, tmp_path_factory):
    """A trained assembly on one pair."""
    out = tmp_path_factory.mktemp("dpo")
    values = trained.settings(tiny_folder(request.param), data_of("pair"), out, method="dpo", trainer=STEPS)
    parts = assemble(Recipe.model_validate(values))
    parts.trainer.train()
    return parts


def test_the_pair_is_learned(parts):
    losses = history(parts, "loss")
    assert losses[0] == pytest.approx(0.6931, abs=1e-3), "at first the model is its own reference"
    assert losses[-1] < losses[0] - 0.1
    assert history(parts, "rewards/margins")[-1] > 0


def test_the_reference_is_the_base_model(parts):
    """What the trainer reports of the chosen answer is, at the start, what the base says by itself."""
    row = parts.prepared.rows[0]
    vlm = vfl.load(parts.vlm.model_id, device="cpu")
    batch = PreferenceCollator(encoder_of(vlm))([row])
    mask = batch.pop("completion_mask")[:, 1:]
    with torch.no_grad():
        logits = vlm.model(**batch).logits[:, :-1]
    scores = logits.log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None])[..., 0]
    expected = (scores * mask).sum(1)
    assert history(parts, "logps/chosen")[0] == pytest.approx(float(expected[0]), rel=1e-4)
    assert history(parts, "logps/rejected")[0] == pytest.approx(float(expected[1]), rel=1e-4)
    model = parts.peft_model
    with torch.no_grad(), model.disable_adapter():
        assert torch.equal(model(**batch).logits[:, :-1], logits)


@pytest.fixture(scope="module")
def done(qwen, data_of, run, tmp_path_factory):
    """A run of pairs without checkpointing: its folder and outcome."""
    out = tmp_path_factory.mktemp("done") / "run"
    return out, run(qwen, data_of(*PAIRS), out, method="dpo")


def test_both_answers_of_a_pair_are_audited(done):
    out, outcome = done
    rows = json.loads((out / "preflight.json").read_text())["audit"]["rows"]
    assert [row["where"].endswith("(rejected)") for row in rows] == [False, False, True, True]
    assert outcome.adapter is not None


def test_checkpointing_changes_no_weight(done, qwen, data_of, run, tmp_path):
    run(qwen, data_of(*PAIRS), tmp_path / "on", method="dpo", checkpointing="on")
    assert trained.difference(trained.weights(tmp_path / "on"), trained.weights(done[0])) < 1e-6
