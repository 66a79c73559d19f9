"""Trials of the selection experiment are what `vfl train` does: the same losses and adapters on the same batches."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
import trained
from peft.utils import get_peft_model_state_dict

sys.path.append(str(Path(__file__).parents[2]))

from experiments.selection.deep_trials import DeepTrials
from experiments.selection.fused import MODULES
from experiments.selection.pool import write_pool
from experiments.selection.pools import write_taught
from experiments.selection.trials import Settings, Trials
from vfl.data import read
from vfl.evaluate.answers import Evaluator
from vfl.evaluate.items import items_of_probes
from vfl.io.config import validated
from vfl.models.boxes import PIXEL
from vfl.probes.make import make
from vfl.probes.style import MICRO_STYLE
from vfl.train.assemble import assemble
from vfl.train.backward.truncate import truncate
from vfl.train.recipe import Recipe
from vfl.train.rows.table import conversation, write_rows


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool") / "p"
    write_pool(folder, each=4, blind=2, repeats=1, wrong=4, seed=3)
    return folder


def test_losses_and_adapters_equal_those_of_vfl_train(pool, tmp_path, loaded):
    recipe = trained.settings(
        Path("micro"), pool / "pool.jsonl", tmp_path / "run", layers="full", data={"images": str(pool)},
        lora={"r": 16, "lora_alpha": 16, "lora_dropout": 0.0},
        trainer={
            "max_steps": -1, "num_train_epochs": 1, "per_device_train_batch_size": 4, "learning_rate": 2e-3,
            "warmup_steps": 0.03,
        },
    )  # fmt: skip
    del recipe["model"]
    parts = assemble(validated(Recipe, recipe, source="test"), progress=False)
    rows = [dict(row) for row in parts.prepared.rows]
    number = {row["uid"]: n for n, row in enumerate(rows)}
    batches = []
    collate = parts.trainer.data_collator

    def recorded(some):
        batches.append([number[row["uid"]] for row in some])
        return collate(some)

    parts.trainer.data_collator = recorded
    before = {name: weight.clone() for name, weight in get_peft_model_state_dict(parts.peft_model).items()}
    with truncate(parts.peft_model, False):
        parts.trainer.train()
    after = get_peft_model_state_dict(parts.peft_model)
    logged = [entry["loss"] for entry in parts.trainer.state.log_history if "loss" in entry]

    trials = Trials(loaded(None), Settings())
    encoded = trials.encode([conversation(row) for row in rows])
    keys = {
        (layer, name): [next(key for key in before if f"layers.{layer}.{name}.lora_{side}" in key) for side in "AB"]
        for layer in range(10)
        for name in MODULES
    }
    with torch.no_grad():
        for place, pair in trials.lora.adapters.items():
            for weight, key in zip(pair, keys[place], strict=True):
                weight.copy_(before[key])
    losses = trials.steps(encoded, batches)
    assert len(losses) == len(logged) == len(batches) > 3
    assert losses == pytest.approx(logged, rel=1e-3, abs=2e-4)
    moved = torch.cat([(after[key] - before[key]).flatten() for pair in keys.values() for key in pair])
    ours = torch.cat([
        (weight.detach() - before[key]).flatten()
        for place, pair in trials.lora.adapters.items()
        for weight, key in zip(pair, keys[place], strict=True)
    ])  # fmt: skip
    # Adam divides by the size of gradients: where they are rounding alone, so are its steps
    assert float((ours - moved).norm() / moved.norm()) < 0.02


def test_a_question_is_right_where_greedy_decoding_says_its_answer(tmp_path, loaded):
    vlm = loaded(None)
    with torch.no_grad():
        for layer in vlm.layers:
            for weight in layer.parameters():
                if weight.dim() > 1:
                    weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * weight.std())
    pairs = make(tmp_path / "probes", ["counting", "ocr", "recognition"], pairs=8, seed=1, style=MICRO_STYLE)
    answered = Evaluator(vlm, items_of_probes(vlm, pairs)).answer()
    trials = Trials(vlm)
    asked = []
    for pair in pairs:
        question = PIXEL.box_prompt(pair.question, pair.label) if pair.match == "box" else pair.question
        shown = {"type": "image", "image": vlm.medium.open(pair.path("image"))}
        asked.append([
            {"role": "user", "content": [shown, {"type": "text", "text": question}]},
            {"role": "assistant", "content": [{"type": "text", "text": pair.answer}]},
        ])  # fmt: skip
    right = trials.right(trials.encode(asked))
    assert right == [answer.correct for answer in answered]
    assert 0 < sum(right) < len(right)


def test_the_same_seed_trains_the_same(pool, loaded):
    trials = Trials(loaded(None))
    first, again = (trials.order(9, seed) for seed in (4, 4))
    assert first == again
    assert sorted(n for batch in first for n in batch) == list(range(9))
    trials.lora.restart(1)
    before = [weight.detach().clone() for weight in trials.lora.parameters]
    trials.lora.restart(1)
    assert all(torch.equal(a, b) for a, b in zip(before, trials.lora.parameters, strict=True))


def test_trials_of_any_architecture_ask_and_train_as_the_fused_ones(pool, tmp_path, loaded):
    """The same answers before training, the same first loss, and adapters that learn the same rows."""
    rows = write_rows(list(read(pool / "pool.jsonl")), tmp_path / "rows.arrow")
    told = [conversation(rows[n]) for n in range(len(rows))]
    vlm = loaded(None, attn_implementation="eager")
    deep = DeepTrials(vlm)
    encoded = deep.encode(told)
    right, first = deep.right(encoded), deep.train(encoded, seed=2)
    again = deep.train(encoded, seed=2)
    fused = Trials(loaded(None))
    assert right == fused.right(fused.encode(told))
    assert again == first, "the adapter before is gone"
    assert first[0] == pytest.approx(fused.train(fused.encode(told), seed=2)[0], rel=1e-3)
    assert len(first) == -(-len(rows) // Settings().batch)
    longer = deep.train(encoded, seed=2, epochs=6)
    assert sum(longer[-len(first) :]) < sum(longer[: len(first)]) / 2
    assert sum(deep.right(encoded)) > sum(right)


def test_the_taught_pool_asks_what_its_pictures_show(tmp_path):
    """As many rows as said, each kind of junk, no picture of the test among the pool's, the same for the same seed."""
    for name in ("once", "again"):
        write_taught(tmp_path / name, seed=3)
    once, again = ((tmp_path / name / "pool.jsonl").read_bytes() for name in ("once", "again"))
    assert once == again
    pool, test = (
        [json.loads(line) for line in (tmp_path / "once" / f"{name}.jsonl").open()] for name in ("pool", "test")
    )
    assert Counter(row["truth"] for row in pool) == {
        "ocr": 320, "grounding": 180, "counting": 120, "recognition": 80, "blind": 80, "repeat": 60, "wrong": 81
    }  # fmt: skip
    assert Counter(row["truth"] for row in test) == dict.fromkeys(("ocr", "grounding", "counting", "recognition"), 40)
    shown, asked = ({(tmp_path / "once" / row["images"][0]).read_bytes() for row in rows} for rows in (pool, test))
    assert not shown & asked
