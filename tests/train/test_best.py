"""Held-out loss, the best step as the result, and stopping when nothing gets better."""

import json
import shutil

import pytest
import torch
import trained

from vfl.errors import InputError
from vfl.train.assemble import assemble
from vfl.train.recipe import Recipe

KINDS = ("image", "text", "turns", "images")
# Up and down, so that the last step is not the best one.
RESTLESS = {"learning_rate": 0.3, "max_steps": 4, "lr_scheduler_type": "constant", "save_steps": 2}


def settings(data_of, **changed):
    return {"heldout": str(data_of("image", "text", "image")), "every": 1, **changed}


def heldout_losses(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["eval_loss"] for line in lines if "eval_loss" in line}


@pytest.fixture(scope="module")
def plain(qwen, data_of, run, tmp_path_factory):
    """A run whose held-out loss is measured at every step, and whose last step is the result."""
    out = tmp_path_factory.mktemp("plain") / "run"
    run(
        qwen,
        data_of(*KINDS),
        out,
        trainer=RESTLESS | {"save_steps": 1, "save_total_limit": 9},
        evaluation=settings(data_of),
    )
    return out


def test_measuring_changes_no_weight(plain, qwen, data_of, run, tmp_path):
    run(qwen, data_of(*KINDS), tmp_path / "run", trainer=RESTLESS)
    assert trained.same(trained.weights(tmp_path / "run"), trained.weights(plain))


def test_it_is_the_mean_over_answer_tokens(plain, qwen, data_of, tmp_path):
    """However the rows are batched: all three in one batch, of the model that was saved."""
    changed = {"trainer": {"per_device_train_batch_size": 3, "max_steps": 1}, "lora": {}}
    rows = data_of("image", "text", "image")
    values = trained.settings(qwen, rows, tmp_path / "run", adapter=str(plain / "adapter"), **changed)
    parts = assemble(Recipe.model_validate(values), progress=False)
    parts.trainer.model.eval()
    batch = parts.trainer._prepare_inputs(parts.trainer.data_collator([parts.prepared.rows[n] for n in range(3)]))
    with torch.no_grad():
        loss = float(parts.trainer.compute_loss(parts.trainer.model, batch))
    assert loss == pytest.approx(heldout_losses(plain)[4], rel=1e-5)


@pytest.fixture(scope="module")
def judged(qwen, data_of, run, tmp_path_factory):
    """The same run, whose result is the best step."""
    out = tmp_path_factory.mktemp("judged") / "run"
    run(qwen, data_of(*KINDS), out, trainer=RESTLESS, evaluation=settings(data_of, best="loss"))
    return out


def test_the_best_step_is_the_result(plain, judged):
    losses = heldout_losses(plain)
    best = min(losses, key=losses.get)
    assert best != max(losses), "else there was nothing to choose"
    values = dict(json.loads((judged / "best" / "history.json").read_text()))
    assert values == {step: -loss for step, loss in losses.items()}
    kept = trained.load_file(plain / "checkpoints" / f"checkpoint-{best}" / "adapter_model.safetensors")
    assert trained.same(trained.weights(judged), kept)
    assert heldout_losses(judged)[4] == pytest.approx(losses[best], rel=1e-6), "what is measured last is the result"


def test_a_resumed_run_finds_the_same(judged, qwen, data_of, run, tmp_path):
    """Interrupted behind its second step, with what it wrote later still there."""
    out = tmp_path / "run"
    shutil.copytree(judged, out)
    shutil.rmtree(out / "adapter")
    shutil.rmtree(out / "checkpoints" / "checkpoint-4")
    (out / "report.html").unlink()
    evaluation = settings(data_of, best="loss")
    run(qwen, data_of(*KINDS), out, trainer=RESTLESS, evaluation=evaluation, how={"resume": True})
    assert trained.same(trained.weights(out), trained.weights(judged))
    assert (out / "best" / "history.json").read_text() == (judged / "best" / "history.json").read_text()


def test_it_stops_when_nothing_gets_better(qwen, data_of, run, tmp_path):
    """An accuracy that stays as it is at steps of no length: the first is the best, two more are waited for."""
    out = tmp_path / "run"
    still = {"learning_rate": 0.0, "weight_decay": 0.0, "max_steps": 9, "save_steps": 1}
    evaluation = {
        "data": {"own": {"path": str(data_of("image", "text")), "max_new_tokens": 4}},
        "every": 1,
        "best": "own",
        "patience": 2,
    }
    run(qwen, data_of(*KINDS), out, trainer=still, evaluation=evaluation)
    assert [step for step, _ in json.loads((out / "best" / "history.json").read_text())] == [1, 2, 3]
    assert (out / "checkpoints" / "checkpoint-3").is_dir()
    assert not (out / "checkpoints" / "checkpoint-4").exists()


@pytest.mark.parametrize(
    ("evaluation", "named"),
    [
        ({"best": "loss", "every": 1}, "heldout"),
        ({"patience": 1}, "best"),
        ({"best": "loss", "heldout": "rows.json"}, "every"),
        ({"best": "cooking", "every": 1}, "'cooking', which is not measured"),
        ({"heldout": "/nowhere.json"}, "/nowhere.json"),
    ],
)
def test_what_cannot_be_judged_is_refused(qwen, data_of, run, tmp_path, evaluation, named):
    with pytest.raises(InputError, match=named):
        run(qwen, data_of("image"), tmp_path / "run", evaluation=evaluation)
