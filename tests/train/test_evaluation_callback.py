"""Evaluating while training changes no weight, writes every measurement down, and goes on where it was stopped."""

import json
import os
import shutil
import struct
from itertools import pairwise
from pathlib import Path

import matplotlib
import pytest
import short_training
import torch
import warm
from short_training import adapted, items, trained, trainer_of
from transformers.trainer_callback import PrinterCallback, ProgressCallback

import vfl
from vfl.errors import InputError
from vfl.evaluate.answers import answer
from vfl.evaluate.items import EvalItem
from vfl.evaluate.result import read_answers, read_evaluation
from vfl.evaluate.summary import compare, summarise
from vfl.probes.make import make
from vfl.probes.style import MICRO_STYLE
from vfl.train.callback.bar import AccuracyBar, use_bar
from vfl.train.callback.evaluation import EvaluationCallback
from vfl.train.callback.metrics_log import MetricsLog
from vfl.train.report.log import read_log

pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory")


@pytest.fixture(scope="module")
def folder(tiny_folder):
    return tiny_folder("qwen2_5_vl")


@pytest.fixture(scope="module")
def plain_weights(folder, tmp_path_factory):
    """The weights that four steps train when nothing is evaluated."""
    vlm, model = adapted(folder)
    trainer_of(vlm, model, tmp_path_factory.mktemp("plain"), None).train()
    return trained(model)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return make(tmp_path_factory.mktemp("pairs") / "suite", ("counting",), pairs=2, style=MICRO_STYLE)


@pytest.fixture(scope="module")
def run(folder, pairs, tmp_path_factory):
    """A run that is evaluated: its folder, weights and callback."""
    out = tmp_path_factory.mktemp("evaluated")
    vlm, model = adapted(folder)
    callback = EvaluationCallback(
        vlm, items(folder), out, every=2, batch=4, metrics=["cosine", "swap"], metric_pairs=pairs, settings={"seed": 3}
    )
    trainer_of(vlm, model, out, callback).train()
    return out, trained(model), callback


def lines_of(out, kind=None):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if kind in (None, row["kind"])]


def same_weights(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_an_evaluated_run_trains_the_same_weights_bit_for_bit(run, folder, plain_weights):
    assert same_weights(run[1], plain_weights)
    assert not same_weights(trained(adapted(folder)[1]), plain_weights), "it trained something"


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated")  # its successor is newer than 5.17
def test_gradient_checkpointing_goes_on_as_before(folder, plain_weights, tmp_path):
    vlm, model = adapted(folder)
    callback = EvaluationCallback(vlm, items(folder), tmp_path, every=1)
    trainer_of(vlm, model, tmp_path, callback, gradient_checkpointing=True, save_strategy="no").train()
    assert any(getattr(part, "gradient_checkpointing", False) for part in model.modules())
    assert same_weights(trained(model), plain_weights)


def test_every_measurement_is_a_line(run, folder):
    out, _, callback = run
    evaluations = lines_of(out, "evaluation")
    assert [row["step"] for row in evaluations] == [0, 2, 4]
    for row in evaluations:
        answered = read_answers(out / "answers" / f"step-{row['step']:06d}.jsonl")
        assert [answer_given.id for answer_given in answered] == [item.id for item in items(folder)]
        for group, summary in summarise(answered).items():
            written = row["groups"][group]
            assert (written["n"], written["accuracy"], written["low"]) == (summary.n, summary.accuracy, summary.low)
            first = evaluations[0]["groups"][group]["accuracy"]
            assert written["forgetting"] == pytest.approx(first - written["accuracy"])
            assert written["forgetting_low"] <= written["forgetting"] <= written["forgetting_high"]
    assert callback.accuracies == {name: group_["accuracy"] for name, group_ in evaluations[-1]["groups"].items()}
    assert [(row["step"], row["name"]) for row in lines_of(out, "metric")] == [
        (step, name) for step in (0, 2, 4) for name in ("cosine", "swap")
    ]
    losses = [row for row in lines_of(out, "train") if "loss" in row]
    assert [row["step"] for row in losses] == [1, 2, 3, 4]
    assert {"learning_rate", "grad_norm", "epoch"} <= losses[0].keys()
    assert all(a["step"] <= b["step"] for a, b in pairwise(lines_of(out)))
    log = read_log(out / "metrics.jsonl")
    assert [step for step, _ in log.evaluations] == [0, 2, 4]
    assert log.curves, "the report reads these lines"


def test_the_first_and_the_last_model_are_what_they_are_said_to_be(run, folder):
    """Step 0 is the model before training; the last answers are those of the trained adapter."""
    out, weights, _ = run
    vlm, model = adapted(folder)
    assert read_answers(out / "answers" / "step-000000.jsonl") == answer(vlm, items(folder), 4)
    model.load_state_dict(weights, strict=False)
    last = answer(vlm, items(folder), 4)
    evaluation, answered = read_evaluation(out)
    assert answered == last
    assert evaluation.step == 4
    assert evaluation.settings == {"seed": 3}
    assert evaluation.groups == summarise(last)
    assert evaluation.baseline.source == "step 0"
    assert evaluation.differences == compare(read_answers(out / "answers" / "step-000000.jsonl"), last)


def test_a_resumed_run_drops_what_it_repeats(run, folder, plain_weights, tmp_path):
    whole, _, _ = run
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "checkpoints" / "checkpoint-4")
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "epo')  # killed while writing
    (out / "answers" / "step-000004.jsonl").write_text("half")
    vlm, model = adapted(folder)
    callback = EvaluationCallback(vlm, items(folder), out, every=2, batch=4)
    trainer_of(vlm, model, out, callback).train(resume_from_checkpoint=str(out / "checkpoints" / "checkpoint-2"))
    assert same_weights(trained(model), plain_weights)
    expected = [row for row in lines_of(whole) if not (row["step"] == 4 and row["kind"] == "metric")]
    timed = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss"}
    assert [{k: row[k] for k in row.keys() - timed} for row in lines_of(out)] == [
        {k: row[k] for k in row.keys() - timed} for row in expected
    ]
    assert read_evaluation(out)[1] == read_evaluation(whole)[1]


def test_a_run_that_ended_is_not_measured_twice(run, folder, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(run[0], out)
    (out / "evaluation.json").unlink()
    vlm, model = adapted(folder)
    trainer = trainer_of(vlm, model, out, EvaluationCallback(vlm, items(folder), out, every=2, batch=4))
    trainer.train(resume_from_checkpoint=str(out / "checkpoints" / "checkpoint-4"))
    assert [row["step"] for row in lines_of(out, "evaluation")] == [0, 2, 4]
    assert read_evaluation(out)[1] == read_evaluation(run[0])[1]


def test_a_new_run_in_the_folder_begins_a_new_log(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics_log = MetricsLog(path)
    metrics_log.start(0)
    for step in (0, 1, 2):
        metrics_log.append(step, step / 2, "train", {"loss": float("nan") if step == 2 else 0.5})
    assert json.loads(path.read_text().splitlines()[-1])["loss"] == "nan"
    metrics_log.start(1)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1]
    metrics_log.start(0)
    assert path.read_text() == ""


def test_an_evaluation_that_fails_leaves_the_model_in_training(folder, tmp_path, monkeypatch):
    vlm, model = adapted(folder)
    modes = [part.training for part in model.modules()]
    trainer = trainer_of(vlm, model, tmp_path, EvaluationCallback(vlm, items(folder), tmp_path))

    def fail(**inputs):
        torch.rand(1)
        raise RuntimeError("a kernel failed")

    monkeypatch.setattr(vlm.model, "generate", fail)
    with pytest.raises(RuntimeError, match="a kernel failed"):
        trainer.train()
    assert [part.training for part in model.modules()] == modes


def test_the_trainers_own_evaluations_are_joined(folder, tmp_path):
    vlm, model = adapted(folder)
    callback = EvaluationCallback(vlm, items(folder, 3), tmp_path, at_start=False)
    trainer = trainer_of(vlm, model, tmp_path, callback, save_strategy="no")
    trainer.eval_dataset = torch.utils.data.Subset(trainer.train_dataset, range(2))
    trainer.args.eval_strategy, trainer.args.eval_steps = "steps", 3
    trainer.train()
    evaluations = lines_of(tmp_path, "evaluation")
    assert [row["step"] for row in evaluations] == [3, 4]
    assert "forgetting" not in evaluations[0]["groups"]["counting"]
    assert read_evaluation(tmp_path)[0].differences is None


def test_the_cost_counts_the_evaluations_and_leaves_the_model_as_it_was(folder, tmp_path, monkeypatch):
    vlm, model = adapted(folder)
    model.train()
    modes = [part.training for part in model.modules()]
    asked = []
    real = EvalItem.correct
    monkeypatch.setattr(EvalItem, "correct", lambda item, *said: asked.append(item.id) or real(item, *said))
    for every, at_start, steps, count in ((2, True, 4, 3), (2, False, 5, 3), (None, True, 7, 2), (None, False, 7, 1)):
        callback = EvaluationCallback(vlm, items(folder), tmp_path, every=every, at_start=at_start, batch=2)
        asked.clear()
        seconds, evaluations = callback.cost(steps)
        assert evaluations == count
        assert seconds > 0
        assert asked == [item.id for item in callback.items[:2]], "one batch stands for all"
    assert [part.training for part in model.modules()] == modes


def test_another_model_than_the_trained_one_is_refused(folder, tmp_path):
    vlm, model = adapted(folder)
    other = vfl.load(folder)
    with pytest.raises(InputError, match="not the model being trained"):
        trainer_of(vlm, model, tmp_path, EvaluationCallback(other, items(folder), tmp_path)).train()


def test_what_cannot_be_measured_is_refused_before_training(folder, tmp_path, pairs):
    vlm = vfl.load(folder)
    with pytest.raises(InputError, match="swop"):
        EvaluationCallback(vlm, items(folder), tmp_path, metrics=["swop"], metric_pairs=pairs)
    with pytest.raises(InputError, match="no probe pairs"):
        EvaluationCallback(vlm, items(folder), tmp_path, metrics=["swap"])
    with pytest.raises(InputError, match="nothing to evaluate"):
        EvaluationCallback(vlm, [], tmp_path)
    with pytest.raises(InputError, match="every is 0"):
        EvaluationCallback(vlm, items(folder), tmp_path, every=0)


def test_the_bar_takes_the_place_of_the_trainers(folder, tmp_path):
    vlm, model = adapted(folder)
    trainer = trainer_of(vlm, model, tmp_path, None, disable_tqdm=False)
    use_bar(trainer)
    kinds = [type(callback) for callback in trainer.callback_handler.callbacks]
    assert kinds.count(AccuracyBar) == 1
    assert ProgressCallback not in kinds
    silent = trainer_of(vlm, model, tmp_path, None, disable_tqdm=True)
    use_bar(silent)
    assert PrinterCallback in [type(callback) for callback in silent.callback_handler.callbacks]
    assert AccuracyBar not in [type(callback) for callback in silent.callback_handler.callbacks]


def test_two_processes_share_the_items_and_wandb_holds_the_values(folder, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"HOME": str(tmp_path), "WANDB_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment["MPLCONFIGDIR"] = matplotlib.get_cachedir()  # or it would list the fonts anew
    done = warm.ranks([str(Path(short_training.__file__)), str(folder), str(tmp_path)], environment)
    assert [rank.returncode for rank in done] == [0, 0], done[0].stderr[-3000:] + done[1].stderr[-3000:]
    ranks = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    padding = 3  # rows of the check that the model can be padded
    assert [sum(rank["asked"]) - padding for rank in ranks] == [3 * 4, 3 * 3], "seven items at each of three steps"
    assert ranks[0]["shown"] == ranks[1]["shown"]
    vlm, _ = adapted(folder)
    assert [item_answer.text for item_answer in read_answers(tmp_path / "answers" / "step-000000.jsonl")] == [
        item_answer.text for item_answer in answer(vlm, items(folder))
    ]
    assert "counting=" in done[0].stderr, "the progress bar shows accuracies"
    assert "loss=" in done[0].stderr
    logged = {}
    (stored,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    for values in histories(stored):
        logged.setdefault(values["train/global_step"], {}).update(values)
    evaluations = lines_of(tmp_path, "evaluation")
    assert [row["step"] for row in evaluations] == [0, 2, 4]
    assert len({row["groups"]["counting"]["accuracy"] for row in evaluations}) > 1
    for row in evaluations:
        for group, group_values in row["groups"].items():
            for name in ("accuracy", "forgetting"):
                assert logged[row["step"]][f"eval/{group}/{name}"] == group_values[name]
    for row in lines_of(tmp_path, "metric"):
        for name, scalar in row["result"]["scalars"].items():
            assert logged[row["step"]][f"metrics/cosine/{name}"] == scalar["value"]
    assert logged[1]["train/loss"] > 0
    curve = lines_of(tmp_path, "metric")[0]["result"]["curves"]["vision"]
    tables = [json.loads(path.read_text()) for path in stored.parent.glob("files/media/table/metrics/cosine/vision/*")]
    last = max(tables, key=lambda table: (table["columns"] == ["step", "layer", "value"], len(table["data"])))
    assert last["data"][: len(curve["at"])] == [[0, *place] for place in zip(curve["at"], curve["value"], strict=True)]
    assert len(last["data"]) == 3 * len(curve["at"])


def histories(path):
    """What a run logged, from wandb's file: LevelDB's log format around its protobuf records."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        length, kind = struct.unpack_from("<HB", data, at + 4)
        if left < 7 or kind == 0:
            at += left
            continue
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record.FromString(whole)
            whole = b""
            if record.WhichOneof("record_type") == "history":
                yield {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
