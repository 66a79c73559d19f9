"""Runs from a recipe to an adapter, on every family and every kind of row."""

import json
import os
import shutil
import signal
import sys
from dataclasses import replace

import pytest
import tiny
import torch
import trained
import warm
from figures import drawn, lines_of
from safetensors.torch import load_file

import vfl
from vfl.errors import InputError
from vfl.loading.adapter import load_adapter
from vfl.train import run as train_run
from vfl.train.assemble import assemble
from vfl.train.recipe import Recipe
from vfl.train.run import train

pytestmark = pytest.mark.long

KINDS = ("image", "text", "turns", "images")
ONE_ANSWER = ("image", "text", "images", "image")  # prefix-LMs take one question a row
LAST = 3


def recipe_of(model, rows, out, **changed):
    return Recipe.model_validate(trained.settings(model, rows, out, **changed))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_only_the_chosen_layers_of_every_family_are_trained(family, tiny_folder, data_of, tmp_path):
    kinds = ONE_ANSWER if family == "paligemma" else KINDS
    folder = tiny_folder(family)
    parts = assemble(recipe_of(folder, data_of(*kinds), tmp_path, layers=[LAST], trainer={"max_steps": 1}))
    model = parts.peft_model
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    trained_names = {name for name, weight in model.named_parameters() if weight.requires_grad}
    parts.trainer.train()
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == trained_names
    assert all(f"layers.{LAST}." in name for name in trained_names)
    assert not any("vision" in name or "visual" in name or "projector" in name for name in trained_names)
    losses = [entry["loss"] for entry in parts.trainer.state.log_history if "loss" in entry]
    assert losses
    assert all(0 < loss < 20 for loss in losses)


@pytest.fixture(scope="module")
def done(qwen, data_of, run, tmp_path_factory):
    """A run of all kinds of rows: its folder and outcome."""
    out = tmp_path_factory.mktemp("done") / "run"
    return out, run(qwen, data_of(*KINDS), out)


def test_what_a_run_leaves(done, qwen):
    out, outcome = done
    assert sorted(path.name for path in out.iterdir()) == [
        "adapter",
        "checkpoints",
        "metrics.jsonl",
        "preflight.json",
        "report.html",
        "settings.yaml",
    ]
    assert (outcome.folder, outcome.adapter) == (out, out / "adapter")
    weights = trained.weights(out)
    assert {int(name.split(".layers.")[1].split(".")[0]) for name in weights} == {2, 3}
    vlm = vfl.load(qwen, device="cpu")
    question = vlm.ask(trained.QUESTION, tiny.picture()).inputs
    with torch.no_grad():
        plain = vlm.model(**question).logits
        adapted = load_adapter(vlm.model, out / "adapter")(**question).logits
    assert not torch.equal(plain, adapted)
    last = load_file(out / "checkpoints" / "checkpoint-2" / "adapter_model.safetensors")
    assert trained.same(weights, last)


def test_a_run_draws_what_it_logged(done, tmp_path):
    out, outcome = done
    (axes,) = drawn(outcome.plot()).axes
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines_of(axes) == [[line["loss"] for line in logged if "loss" in line]]
    with pytest.raises(InputError, match="logs no step"):
        replace(outcome, folder=tmp_path).plot()
    with pytest.raises(InputError, match="only checked"):
        replace(outcome, adapter=None).plot()


def test_the_loss_is_recorded_and_drawn_without_an_evaluation(done):
    lines = [json.loads(line) for line in (done[0] / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines if "loss" in line] == trained.losses(done[0])
    assert {line["kind"] for line in lines} == {"train"}
    assert [line["step_seconds"] > 0 for line in lines if "step_seconds" in line] == [True]
    assert "Loss" in (done[0] / "report.html").read_text()


def test_every_logger_is_told_the_accuracies_and_none_of_the_losses_is_lost(done, qwen, data_of, run, tmp_path):
    out = tmp_path / "run"
    evaluation = {"data": {"own": {"path": str(data_of("image", "text")), "max_new_tokens": 4}}, "every": 1}
    run(qwen, data_of(*KINDS), out, evaluation=evaluation)
    assert trained.losses(out) == trained.losses(done[0])
    state = json.loads((out / "checkpoints" / "checkpoint-2" / "trainer_state.json").read_text())
    logged = {row["step"]: row["eval_own/accuracy"] for row in state["log_history"] if "eval_own/accuracy" in row}
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    written = {row["step"]: row["groups"]["own"]["accuracy"] for row in lines if row["kind"] == "evaluation"}
    assert logged == written
    assert list(logged) == [0, 1, 2]
    assert not any("eval_own/accuracy" in row for row in lines)


def test_the_loss_is_on_the_answers_alone(done):
    audit = json.loads((done[0] / "preflight.json").read_text())["audit"]
    assert audit["rows"]
    for number, row in enumerate(audit["rows"]):
        answer = trained.ANSWERS[number]
        assert answer in row["answers"][0]
        assert trained.QUESTION not in "".join(row["answers"])


def test_the_resolved_recipe_trains_the_same(done, tmp_path):
    from vfl.train.run import train

    train(done[0] / "settings.yaml", [f"out={tmp_path / 'again'}"], progress=False)
    assert trained.same(trained.weights(tmp_path / "again"), trained.weights(done[0]))


@pytest.mark.parametrize("checkpointing", ["on", "auto"])
def test_checkpointing_changes_no_weight(done, qwen, data_of, run, tmp_path, checkpointing):
    run(qwen, data_of(*KINDS), tmp_path / "run", checkpointing=checkpointing)
    assert trained.difference(trained.weights(tmp_path / "run"), trained.weights(done[0])) < 1e-6


def test_a_check_stops_before_training_and_changes_nothing(done, qwen, data_of, run, tmp_path):
    out = tmp_path / "run"
    outcome = run(qwen, data_of(*KINDS), out, how={"check": True})
    assert outcome.adapter is None
    assert [path.name for path in out.iterdir()] == ["preflight.json"]
    run(qwen, data_of(*KINDS), out)
    assert trained.same(trained.weights(out), trained.weights(done[0]))


def test_a_check_writes_nothing_where_a_run_lies(done, qwen, data_of, run):
    """Not even where it would be refused to train: it says what would be trained, and leaves all as it was."""
    out = done[0]

    def files():
        return {path: path.stat().st_mtime_ns for path in [*out.parent.rglob("*"), out]}

    before = files()
    outcome = run(qwen, data_of("image", "text"), out, how={"check": True}, layers=[1])
    assert (outcome.folder, outcome.preflight) == (out, None)
    assert outcome.flight.arm.layers == (1,)
    assert files() == before


def test_accumulated_batches_count_by_their_tokens(done, qwen, data_of, run, tmp_path):
    """Answers differ in length: a mean of the batches' means would be another loss."""
    runs = [{"per_device_train_batch_size": 4}, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}]
    weights = []
    for number, trainer in enumerate(runs):
        run(qwen, data_of(*KINDS), tmp_path / str(number), trainer=trained.STEADY | trainer)
        weights.append(trained.weights(tmp_path / str(number)))
    assert trained.difference(*weights) < trained.ROUNDING


def test_another_run_may_be_overwritten_when_asked(done, qwen, data_of, run, tmp_path):
    out = tmp_path / "run"
    evaluation = {"data": {"own": {"path": str(data_of("image", "text")), "max_new_tokens": 4}}}
    run(qwen, data_of("image", "text"), out, evaluation=evaluation)
    run(qwen, data_of(*KINDS), out, how={"overwrite": True})
    assert trained.same(trained.weights(out), trained.weights(done[0]))
    assert not [name for name in ("evaluation.json", "answers") if (out / name).exists()]


def test_a_mistake_costs_no_earlier_run(done, qwen, data_of, run, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(done[0], out)
    evaluation = {"probes": "micro", "pairs": 1, "functions": ["cooking"]}
    with pytest.raises(InputError, match="cooking"):
        run(qwen, data_of(*KINDS), out, how={"overwrite": True}, evaluation=evaluation)
    assert trained.same(trained.weights(out), trained.weights(done[0]))


def test_wandb_without_a_login_is_offline_and_asks_nobody(qwen, data_of, tmp_path):
    values = trained.settings(qwen, data_of("image", "text"), tmp_path / "run", trainer={"report_to": ["wandb"]})
    recipe = trained.write_recipe(tmp_path / "recipe.yaml", values)
    environment = trained.environment(HOME=str(tmp_path), WANDB_DIR=str(tmp_path))
    done = warm.finished(["-m", "vfl.train.launch", str(recipe)], environment)
    assert done.returncode == 0, done.stderr[-3000:]
    (stored,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert b"train/loss" in stored.read_bytes()


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(qwen, data_of, tmp_path):
    out = tmp_path / "run"
    values = trained.settings(qwen, data_of(*KINDS), out, trainer={"max_steps": 10000, "save_steps": 1})
    recipe = trained.write_recipe(tmp_path / "recipe.yaml", values)
    command = ["-c", "from vfl.commands.main import run; run()", "train", str(recipe)]
    process = warm.Process(command, trained.environment())
    # Any of them: the first is rotated away soon.
    while process.poll(0.05) is None and not any((out / "checkpoints").glob("checkpoint-*")):
        pass
    os.kill(process.pid, signal.SIGINT)
    ended = process.finish()
    assert ended.returncode == 130, ended.stderr[-3000:]
    assert "--resume" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_compiled_steps_train_the_same_weights(qwen, data_of, run, tmp_path):
    """Their sums are in another order; each length of rows is compiled by itself, which takes minutes on a CPU."""
    steps = {"max_steps": 2, **trained.STEADY}
    for name, compiled in (("plain", False), ("compiled", True)):
        run(qwen, data_of("image", "text"), tmp_path / name, trainer={**steps, "torch_compile": compiled})
    plain, compiled = (trained.weights(tmp_path / name) for name in ("plain", "compiled"))
    assert trained.difference(plain, compiled) < trained.ROUNDING
    warnings = json.loads((tmp_path / "compiled" / "preflight.json").read_text())["launch"]["warnings"]
    assert any("compiles anew" in warning for warning in warnings)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero2-offload", "zero3-offload"])
def test_offloading_trains_a_step(qwen, data_of, name, tmp_path):
    values = trained.settings(qwen, data_of(*KINDS), tmp_path / "run", deepspeed=name, trainer={"max_steps": 1})
    recipe = trained.write_recipe(tmp_path / "recipe.yaml", values)
    done = warm.finished(["-m", "vfl.train.launch", str(recipe)], trained.environment())
    assert done.returncode == 0, done.stderr[-3000:]
    assert trained.weights(tmp_path / "run")


def test_machines_that_see_other_checkpoints_do_not_go_on(monkeypatch, tmp_path):
    """What another process of the run sees is put into the gathering."""
    for number in (2, 4):
        (tmp_path / f"checkpoint-{number}").mkdir()
        (tmp_path / f"checkpoint-{number}" / "trainer_state.json").write_text("{}")
    monkeypatch.setattr(train_run, "gather_object", lambda mine: [*mine, "checkpoint-4"])
    assert [path.name for path in train_run.last_of_all(tmp_path)] == ["checkpoint-2", "checkpoint-4"]
    monkeypatch.setattr(train_run, "gather_object", lambda mine: [*mine, "none"])
    with pytest.raises(InputError, match=r"see other checkpoints .*process 0: checkpoint-4, process 1: none"):
        train_run.last_of_all(tmp_path)


def test_an_unknown_deepspeed_configuration_is_refused(qwen, data_of, tmp_path):
    with pytest.raises(InputError, match=r"zero2-offload.*nor a file"):
        train(recipe_of(qwen, data_of(*KINDS), tmp_path, deepspeed="zero4"), progress=False)
    assert not os.listdir(tmp_path)


def test_without_deepspeed_its_setting_is_refused_and_others_train(qwen, data_of, run, tmp_path, monkeypatch):
    """As where the extra is not installed: any import of it fails."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "deepspeed"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(InputError, match=r'deepspeed=\'zero2\' needs DeepSpeed.*pip install "vfl\[train,deepspeed\]"'):
        train(recipe_of(qwen, data_of(*KINDS), tmp_path, deepspeed="zero2"), progress=False)
    assert not os.listdir(tmp_path)
    assert run(qwen, data_of("text"), tmp_path / "plain", trainer={"max_steps": 1}).adapter.is_dir()
