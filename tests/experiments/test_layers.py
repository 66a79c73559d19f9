"""The layer experiment: its loop trains as `vfl train` does, its arms have equal parameters, its tasks are apart."""

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))

import vfl  # noqa: E402
from experiments.layers import negatives  # noqa: E402
from experiments.layers.arms import DATA_RULES, arm_of  # noqa: E402
from experiments.layers.loop import Schedule, adapted, as_anchors, batches, encode, fit, loss_of  # noqa: E402
from experiments.layers.plan import (  # noqa: E402
    BETAS,
    CHOSEN,
    FIRST,
    KEPT_ON,
    SECOND,
    Run,
    best_beta,
    best_kept,
    planned,
    planned_anchors,
    planned_confirmed,
    planned_long,
)
from experiments.layers.preference import pair_loss, pairs_of  # noqa: E402
from experiments.layers.tasks import TASKS, rows_of, write  # noqa: E402
from vfl.data import read  # noqa: E402
from vfl.functionmap import FunctionMap  # noqa: E402
from vfl.models.boxes import UNIT  # noqa: E402
from vfl.models.conversation import encoder_of  # noqa: E402
from vfl.train.adapter.lora import build_lora  # noqa: E402
from vfl.train.adapter.lora_rank import count_parameters  # noqa: E402
from vfl.train.assemble import assemble  # noqa: E402
from vfl.train.layers.freeze import FreezeConfig  # noqa: E402
from vfl.train.recipe import Recipe  # noqa: E402
from vfl.train.rows.table import conversation, write_rows  # noqa: E402
from vfl.train.trainers import trained_state  # noqa: E402

MAP = ROOT / "recipes" / "micro" / "map.json"
SCORES = {rule: [float((3 * layer) % 10) for layer in range(10)] for rule in DATA_RULES}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("task") / "roman"
    write(folder, "train", rows_of("roman", 20, seed=0, test=False), set())
    return folder / "train.jsonl"


@pytest.fixture(scope="module")
def embedded():
    """The model that is not trained itself: adapters come and go."""
    return vfl.load(None, attn_implementation="eager", device="cpu")


@pytest.mark.parametrize(
    ("layers", "freeze", "beta", "whole_every"),
    [("full", {"below": 0.6, "after": 0.5}, None, None), ([4, 6], None, 2.0, 3)],
)
def test_the_loop_trains_as_vfl_train_does(layers, freeze, beta, whole_every, task, embedded, tmp_path):
    """Losses of six steps, over the end of an epoch, from the same adapter; with anchors and a short backward pass."""
    recipe = {
        "out": str(tmp_path / "run"),
        "data": {"train": str(task)},
        "layers": layers,
        "freeze": freeze,
        "lora": {"r": 4, "lora_dropout": 0.0},
        "trainer": {
            "learning_rate": 2e-3,
            "per_device_train_batch_size": 6,
            "max_steps": 6,
            "logging_steps": 1,
            "disable_tqdm": True,
        },
        "attn_implementation": "eager",
        "checkpointing": "off",
        "seed": 0,
    }
    if whole_every is not None:
        recipe["backward"] = {"tokens": "after_image", "whole_every": whole_every}
    if beta is not None:
        recipe["protect"] = {"how": "kl", "beta": beta, "anchors": {"data": str(task), "share": 0.3}}
    parts = assemble(Recipe.model_validate(recipe), progress=False)
    start = trained_state(parts.peft_model)
    vlm = embedded
    rows = encode(vlm, [parts.prepared.rows[n] for n in range(len(parts.prepared.rows))])
    new = parts.prepared.facts.used
    rows = rows[:new] + as_anchors(vlm, rows[new:])
    assert len(rows) == (20 if beta is None else 29)
    schedule = Schedule(steps=6, batch=6, learning_rate=2e-3)
    parts.trainer.train()
    expected = [entry["loss"] for entry in parts.trainer.state.log_history if "loss" in entry]
    with adapted(vlm, build_lora(vlm.model, parts.layers, recipe["lora"]), seed=0) as model:
        model.load_state_dict(start, strict=False)
        order = batches(len(rows), schedule, seed=0)
        freezing = freeze and FreezeConfig(**freeze)
        loss = partial(loss_of, beta=beta or 0.0)
        losses = fit(vlm, model, rows, order, schedule, freeze=freezing, loss=loss, whole_every=whole_every)
    assert losses == pytest.approx(expected, rel=2e-3)
    assert losses[0] != pytest.approx(losses[-1], rel=0.05)


@pytest.mark.parametrize("kind", ["sigmoid", "sigmoid_sft"])
def test_pairs_train_as_dpo_of_vfl_train_does(kind, task, embedded, tmp_path):
    """Losses of four steps, over the end of an epoch, from the same adapter and reference."""
    answers = ("I", "II", "III")
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "roman-images").symlink_to(task.parent / "train-images")
    with (tmp_path / "pairs" / "pairs.jsonl").open("w") as file:
        for line in task.read_text().splitlines()[:8]:
            row = json.loads(line.replace("train-images", "roman-images"))
            row["chosen"] = row.pop("completion")
            other = next(answer for answer in answers if answer != row["chosen"][0]["content"])
            row["rejected"] = [{"role": "assistant", "content": other}]
            file.write(json.dumps(row) + "\n")
    trainer = {
        "learning_rate": 5e-3,
        "per_device_train_batch_size": 4,
        "max_steps": 4,
        "logging_steps": 1,
        "disable_tqdm": True,
        "loss_type": kind.split("_"),
    }
    recipe = {
        "out": str(tmp_path / "run"),
        "method": "dpo",
        "data": {"train": str(tmp_path / "pairs")},
        "layers": [4, 6],
        "lora": {"r": 4, "lora_dropout": 0.0},
        "trainer": trainer,
        "attn_implementation": "eager",
        "checkpointing": "off",
        "seed": 0,
    }
    parts = assemble(Recipe.model_validate(recipe), progress=False)
    start = trained_state(parts.peft_model)
    vlm = embedded
    pairs = pairs_of(vlm, tmp_path / "pairs")
    parts.trainer.train()
    expected = [entry["loss"] for entry in parts.trainer.state.log_history if "loss" in entry]
    schedule = Schedule(steps=4, batch=4, learning_rate=5e-3)
    with adapted(vlm, build_lora(vlm.model, parts.layers, recipe["lora"]), seed=0) as model:
        model.load_state_dict(start, strict=False)
        losses = fit(vlm, model, pairs, batches(len(pairs), schedule, seed=0), schedule, loss=pair_loss(kind))
    assert losses == pytest.approx(expected, rel=2e-3)
    assert losses[-1] < losses[0] - 0.01


def test_rows_enter_as_the_model_lets_them(task, embedded):
    vlm = embedded
    rows = write_rows(read([task]), task.parent / "rows.arrow")
    some = [rows[n] for n in range(5)]
    batch = encoder_of(vlm).encode([conversation(row) for row in some], [row["prompt"] for row in some])
    labels = batch.inputs["input_ids"].masked_fill(~batch.answers, -100)
    with torch.no_grad():
        plain = vlm.model(**batch.inputs, labels=labels).loss
        assert float(loss_of(vlm, encode(vlm, some))) == pytest.approx(float(plain), rel=1e-5)


@pytest.mark.parametrize("name", [name for name in (*FIRST, *SECOND) if name not in ("full", "half")])
@pytest.mark.parametrize("task_name", ["roman", "cells"])
def test_arms_have_equal_parameters(name, task_name, embedded):
    fmap, model = FunctionMap.load(MAP), embedded.model
    arm = arm_of(name, TASKS[task_name], SCORES, fmap, seed=0)
    assert arm is not None
    count = count_parameters(model, build_lora(model, arm.layers, arm.lora()))
    three = count_parameters(model, build_lora(model, [0, 1, 2], {"r": 16}))
    assert count == pytest.approx(three, rel=0.06)


def test_no_test_picture_is_a_training_picture(tmp_path):
    taken: set[bytes] = set()
    write(tmp_path / "task", "train", rows_of("dark", 60, seed=0, test=False), taken)
    trained = set(taken)
    write(tmp_path / "task", "test", rows_of("dark", 60, seed=0, test=True), taken)
    assert taken > trained
    lines = [json.loads(line) for line in (tmp_path / "task" / "test.jsonl").read_text().splitlines()]
    assert 0 < len(lines) <= 60


def test_the_way_to_keep_the_old_is_the_best_of_the_runs_that_are_shipped():
    path = ROOT / "experiments" / "layers" / "results-240.jsonl"
    results = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert best_kept(results) == CHOSEN
    assert best_kept(results[:50]) is None
    judged = {(run.task, run.seed) for run in planned_confirmed("planted", 1) if run.favour and run.arm == "thin"}
    assert judged, "something judges"
    assert not judged & set(KEPT_ON)


def test_the_weight_of_anchors_is_chosen_by_what_is_learned_and_kept():
    runs = list(planned_anchors("planted", None, seeds=2))
    assert [best_beta([]), len(runs)] == [None, len(BETAS)]
    results = [
        {"run": run.key(), "after": {"new": "1" * 5 + "0" * 5, "ocr": str(int(run.beta == BETAS[2]))}} for run in runs
    ]
    assert best_beta(results) == BETAS[2]
    later = list(planned_anchors("planted", BETAS[2], seeds=2))[len(runs) :]
    assert len(later) == len({run.key() for run in later}) == 2 * 2 * 2 * 2
    assert Run("planted", "cells", "thin", 5e-3, 1, 0.1).key() in {run.key() for run in planned_long("planted")}
    assert {run.key() for run in later if run.beta is None} >= {Run("planted", "cells", "thin", 5e-3, 1, 0.1).key()}


def test_every_run_is_planned_once():
    runs = [run.key() for run in planned("planted", 2e-3, seeds=3)]
    later = list(planned("planted", None, seeds=3))
    assert len(later) == 8
    assert {Run("planted", "cells", arm, 2e-3, 0, 0.0).key() for arm in (*FIRST, *SECOND)} <= set(runs)


def test_negatives_are_planned_and_tabled():
    """Every arm once, rates first; a gain of nothing has an interval around nothing, and one of everything has none."""
    first = list(negatives.planned("planted", {}))
    assert {run.arm for run in first} == {"sft", "both map"}
    assert len(set(first)) == len(first) == 2 * len(negatives.RATES)
    rate = negatives.RATES[0]  # the first of equals
    known = {(kind, name): rate for kind in negatives.SET_ON for name in negatives.RATED}
    runs = list(negatives.planned("planted", known))
    assert len(set(runs)) == len(runs) == len(negatives.ARMS) * len(negatives.TASKS_OF["planted"]) * negatives.SEEDS
    with pytest.raises(ValueError, match="run it first"):
        next(negatives.planned("twin", {}))
    fmap = FunctionMap.load(MAP)
    assert negatives.blind_at("map", "dark", fmap, 0) == {"blind": [5]}
    assert negatives.blind_at("map", "worn ocr", fmap, 0) == {"blind": [8]}
    assert negatives.blind_at("random", "dark", fmap, 2) == {"blind": "random:1", "seed": 102}
    old = dict.fromkeys(("recognition", "counting", "grounding", "ocr"), "1111")
    rated = [negatives.rating(kind, name) for kind, name in known]
    results = [{"run": run.key(), "after": {"new": "0000", **old}} for rates in rated for run in rates]
    results.append({"run": "planted dark", "after": {"new": "0000", **old}})
    for run in runs:
        if run.task == "dark":
            new = "0110" if run.arm == "sft" else "1111"
            results.append({"run": run.key(), "kept": 7, "after": {"new": new, **old}})
    shown = negatives.table(results)
    assert "| sft | 50, +0 (+0 to +0) / 100 / 100, 7 rows, n 3 |" in shown
    assert "| both map | 100, +50 (+0 to +100) / 100 / 100, 7 rows, n 3 |" in shown


def test_the_rows_of_a_known_task(tmp_path):
    name = negatives.written(tmp_path, "worn ocr")
    assert name == negatives.written(tmp_path, "ocr") == "plain-ocr"
    lines = (tmp_path / "tasks" / name / "test.jsonl").read_text().splitlines()
    assert {json.loads(line)["function"] for line in lines} == {"ocr"}


def test_tasks_and_rows_of_a_model_with_plain_positions(loaded, tmp_path):
    """A model whose images have no rows and columns, and whose boxes are shares of the image: its own loss."""
    vlm, taken = loaded("smolvlm", attn_implementation="eager", device="cpu"), set()
    assert vlm.family.boxes is UNIT
    write(tmp_path / "poster", "train", rows_of("poster", 3, seed=0, test=False, boxes=vlm.family.boxes), taken)
    rows = write_rows(list(read(tmp_path / "poster" / "train.jsonl")), tmp_path / "rows.arrow")
    some = [rows[n] for n in range(3)]
    lines = (tmp_path / "poster" / "train.jsonl").read_text().splitlines()
    answers = [json.loads(line)["completion"][0]["content"] for line in lines]
    assert all(UNIT.parse_box(answer, (80, 80), (80, 80)) for answer in answers), answers
    batch = encoder_of(vlm).encode([conversation(row) for row in some], [row["prompt"] for row in some])
    labels = batch.inputs["input_ids"].masked_fill(~batch.answers, -100)
    with torch.no_grad():
        plain = vlm.model(**batch.inputs, labels=labels).loss
        assert float(loss_of(vlm, encode(vlm, some))) == pytest.approx(float(plain), rel=1e-5)
