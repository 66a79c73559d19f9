"""The layer experiment: its loop trains as `vfl train` does, its arms have equal parameters, its tasks are apart."""

import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))

import vfl  # noqa: E402
from experiments.layers.arms import DATA_RULES, arm_of  # noqa: E402
from experiments.layers.loop import Schedule, batches, encode, fit, loss_of  # noqa: E402
from experiments.layers.run import FIRST, SECOND, Run, planned  # noqa: E402
from experiments.layers.tasks import TASKS, rows_of, write  # noqa: E402
from vfl.functionmap import FunctionMap  # noqa: E402
from vfl.models.conversation import encoder_of  # noqa: E402
from vfl.train.adapter.lora import build_lora  # noqa: E402
from vfl.train.adapter.lora_rank import count_parameters  # noqa: E402
from vfl.train.assemble import assemble  # noqa: E402
from vfl.train.layers.freeze import FreezeConfig  # noqa: E402
from vfl.train.recipe import Recipe  # noqa: E402
from vfl.train.rows.table import conversation  # noqa: E402
from vfl.train.trainers import trained_state  # noqa: E402

MAP = ROOT / "recipes" / "micro" / "map.json"
SCORES = {rule: [float((3 * layer) % 10) for layer in range(10)] for rule in DATA_RULES}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("task") / "roman"
    write(folder, "train", rows_of("roman", 20, seed=0, test=False), set())
    return folder / "train.jsonl"


@pytest.mark.parametrize(("layers", "freeze"), [("full", {"below": 0.6, "after": 0.5}), ([4, 6], None)])
def test_the_loop_trains_as_vfl_train_does(layers, freeze, task, tmp_path):
    """Losses of six steps, over the end of an epoch, from the same adapter."""
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
        "attention": "eager",
        "checkpointing": "off",
        "seed": 0,
    }
    parts = assemble(Recipe.model_validate(recipe), progress=False)
    start = trained_state(parts.peft_model)
    vlm = vfl.load(None, attention="eager", device="cpu")
    rows = encode(vlm, [parts.prepared.rows[n] for n in range(len(parts.prepared.rows))])
    schedule = Schedule(steps=6, batch=6, learning_rate=2e-3)
    parts.trainer.train()
    expected = [entry["loss"] for entry in parts.trainer.state.log_history if "loss" in entry]
    from experiments.layers.loop import adapted

    with adapted(vlm, build_lora(vlm.model, parts.layers, recipe["lora"]), seed=0) as model:
        model.load_state_dict(start, strict=False)
        order = batches(len(rows), schedule, seed=0)
        losses = fit(vlm, model, rows, order, schedule, freeze=freeze and FreezeConfig(**freeze))
    assert losses == pytest.approx(expected, rel=2e-3)
    assert losses[0] != pytest.approx(losses[-1], rel=0.05)


def test_rows_enter_as_the_model_lets_them(task):
    vlm = vfl.load(None, attention="eager", device="cpu")
    from vfl.data import read
    from vfl.train.rows.table import write_rows

    rows = write_rows(read([task]), task.parent / "rows.arrow")
    some = [rows[n] for n in range(5)]
    batch = encoder_of(vlm).encode([conversation(row) for row in some], [row["prompt"] for row in some])
    labels = batch.inputs["input_ids"].masked_fill(~batch.answers, -100)
    with torch.no_grad():
        plain = vlm.model(**batch.inputs, labels=labels).loss
        assert float(loss_of(vlm, encode(vlm, some))) == pytest.approx(float(plain), rel=1e-5)


@pytest.mark.parametrize("name", [name for name in (*FIRST, *SECOND) if name not in ("full", "half")])
@pytest.mark.parametrize("task_name", ["roman", "cells"])
def test_arms_have_equal_parameters(name, task_name):
    fmap, model = FunctionMap.load(MAP), vfl.load(None, device="cpu").model
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


def test_every_run_is_planned_once():
    runs = [run.key() for run in planned("planted", 2e-3, seeds=3)]
    later = list(planned("planted", None, seeds=3))
    assert len(later) == 8
    assert {Run("planted", "cells", arm, 2e-3, 0, 0.0).key() for arm in (*FIRST, *SECOND)} <= set(runs)
