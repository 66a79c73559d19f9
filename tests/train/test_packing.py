"""Packed rows: dealt whole and once, with the loss and the gradients that they have apart, whatever else a run does."""

import shutil

import pyarrow.parquet as pq
import pytest
import torch
import trained

import vfl
from vfl.data import read
from vfl.data.token_weights import TOKEN_WEIGHTS, answer_hash, row_digest, weights_table
from vfl.errors import InputError
from vfl.models.conversation import encoder_of
from vfl.train.arguments import trainer_arguments
from vfl.train.assemble import assemble
from vfl.train.data_config import DataConfig
from vfl.train.preflight.facts import Preflight
from vfl.train.recipe import Recipe, read_recipe
from vfl.train.report.log import read_log
from vfl.train.rows.collate import Collator
from vfl.train.rows.packs import WINDOW, pack_rows
from vfl.train.rows.prepare import prepare
from vfl.train.try_packing import check_packing, try_packing

KINDS = ("image", "text", "turns", "images", "image", "image")
PACKED = {"packing": True, "data": {"max_length": 160}}


def recipe_of(model, rows, out, **changed):
    return Recipe.model_validate(trained.settings(model, rows, out, **changed))


def test_every_row_is_in_one_pack_and_packs_are_full():
    lengths = [1 + (37 * n) % 101 for n in range(WINDOW + 300)]
    packs = pack_rows(lengths, 128, seed=3)
    tokens = [sum(lengths[row] for row in pack) for pack in packs]
    assert sorted(row for pack in packs for row in pack) == list(range(len(lengths)))
    assert max(tokens) <= 128
    # Johnson et al.: at most 11/9 of the fewest and a few, for each of the two windows.
    assert len(packs) <= 11 / 9 * -(-sum(lengths) // 128) + 2 * 4
    assert packs == pack_rows(lengths, 128, seed=3) != pack_rows(lengths, 128, seed=4)
    assert pack_rows([5, 5, 5], 9, seed=0) != [], "a row that shares with none is a pack by itself"


def weights_of(model, data, folder):
    """A file of weights that count every other token of each answer."""
    vlm = vfl.load(model, device="cpu")
    rows = prepare(DataConfig(train=(data,)), encoder_of(vlm), method="sft", progress=False).rows
    labels = Collator(encoder_of(vlm))(list(rows))["labels"]
    answers = [ids[ids != -100].tolist() for ids in labels]
    names = [row_digest(sample) for sample in read(data)]
    weights = [[(place + 1) % 2 for place in range(len(ids))] for ids in answers]
    path = folder / TOKEN_WEIGHTS
    pq.write_table(weights_table(names, [answer_hash(ids) for ids in answers], weights), path)
    return path


def gradients(parts, loss):
    parts.peft_model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: value.grad.clone() for name, value in parts.peft_model.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("family", ["embedded", "qwen3_vl", "smolvlm", "llava"])
def test_loss_and_gradients_are_those_of_the_rows_apart(family, tiny_folder, data_of, tmp_path):
    model = family if family == "embedded" else tiny_folder(family)
    recipe = recipe_of(model, data_of(*KINDS), tmp_path, packing=True, data={"max_length": 500}, layers=[1, 2])
    parts = assemble(recipe, progress=False)
    trainer = parts.trainer
    generator = torch.Generator().manual_seed(0)
    for parameter in parts.peft_model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    assert max(map(len, parts.packs.packs)) > 2
    batches = list(trainer.get_train_dataloader())
    rows = [trainer.data_collator([row]) for row in parts.prepared.rows]
    count = trainer._get_num_items_in_batch(batches, torch.device("cpu"))
    assert count == trainer._get_num_items_in_batch(rows, torch.device("cpu"))
    parts.peft_model.train()
    losses, grads = [], []
    for inputs in (batches, rows):
        loss = sum(trainer.compute_loss(parts.peft_model, dict(each), num_items_in_batch=count) for each in inputs)
        losses.append(float(loss.detach()))
        grads.append(gradients(parts, loss))
        assert trainer._total_train_tokens == len(losses) * sum(parts.packs.tokens)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert trained.difference(*grads) < trained.ROUNDING


def test_a_run_is_one_that_takes_the_same_rows_apart(qwen, data_of, run, tmp_path):
    """With replayed and anchor rows, token weights, and a truncated backward pass that is checkpointed."""
    rows, old = data_of(*KINDS), str(data_of("image", "text", "image"))
    weights = weights_of(qwen, rows, tmp_path)
    changed = {
        "checkpointing": "on",
        "protect": {"how": "kl", "beta": 3.0, "functions": "ocr", "anchors": {"data": old, "share": 0.2}},
        "trainer": {"max_steps": -1, "num_train_epochs": 3, **trained.STEADY},
    }
    data = {"token_weights": str(weights), "replay": {"data": old, "share": 0.2}}
    for name, size, own in (
        ("apart", 10, {"data": data}),
        ("packed", 1, {"packing": True, "data": {**data, "max_length": 10_000}}),
    ):
        trainer = changed["trainer"] | {"per_device_train_batch_size": size}
        run(qwen, rows, tmp_path / name, **{**changed, **own, "trainer": trainer})
    apart, packed = tmp_path / "apart", tmp_path / "packed"
    assert trained.difference(trained.weights(apart), trained.weights(packed)) < trained.ROUNDING
    logs = [read_log(folder / "metrics.jsonl").train[:3] for folder in (apart, packed)]
    for (_, first), (_, second) in zip(*logs, strict=True):
        for name in ("loss", "kl", "grad_norm", "mean_token_accuracy", "entropy"):
            assert second[name] == pytest.approx(first[name], rel=1e-4, abs=1e-6), name
        assert second["num_tokens"] == first["num_tokens"]
    logged = [numbers for _, numbers in read_log(packed / "metrics.jsonl").train]
    paces = next(numbers for numbers in logged if "train_samples_per_second" in numbers)
    assert paces["train_samples_per_second"] / paces["train_steps_per_second"] == pytest.approx(10, rel=0.01)
    flight = Preflight.load(packed / "preflight.json")
    launch = flight.launch
    assert (launch.rows, launch.packs, launch.steps_per_epoch, launch.total_steps) == (10, 1, 1, 3)
    assert (flight.memory.packed, flight.memory.rows) == (True, 1)
    assert flight.memory.tokens == pytest.approx(10 * flight.lengths.total.mean)
    said = "10 rows in 1 pack of at most 10,000 tokens"
    assert flight.packing.startswith(said)
    for file in ("report.html", "adapter/README.md"):
        assert said in (packed / file).read_text().replace("\\", "")


def test_an_interrupted_run_ends_with_the_same_weights(qwen, data_of, run, tmp_path):
    settings = trained.SHORT | PACKED | {"evaluation": {"heldout": str(data_of("image", "text"))}}
    settings["trainer"] = settings["trainer"] | {
        "gradient_accumulation_steps": 1,
        "save_steps": 1,
        "save_total_limit": 9,
    }
    out = tmp_path / "run"
    run(qwen, data_of(*trained.SHORT_KINDS), out, **settings)
    flight = Preflight.load(out / "preflight.json")
    assert flight.launch.packs < 10
    assert flight.launch.total_steps == 2 * -(-flight.launch.packs // 2)
    whole = trained.weights(out)
    steps = flight.launch.total_steps
    last = steps - 1  # within the second epoch
    assert last > steps / 2
    shutil.rmtree(out / "checkpoints" / f"checkpoint-{steps}")
    (out / "report.html").unlink()
    run(qwen, data_of(*trained.SHORT_KINDS), out, how={"resume": True}, **settings)
    assert trained.same(trained.weights(out), whole)


@pytest.mark.parametrize("family", ["gemma3", "paligemma", "llama4"])
def test_a_model_whose_attention_goes_by_places_is_refused(family, tiny_folder, data_of):
    vlm = vfl.load(tiny_folder(family), device="cpu")
    encoder = encoder_of(vlm)
    config = DataConfig(train=(data_of("image", "image", "image"),))
    rows = prepare(config, encoder, method="sft", progress=False).rows
    with pytest.raises(InputError, match=r"packing can't be had with \w+ForConditionalGeneration"):
        try_packing(vlm, encoder, [rows[0], rows[1]])


def test_rows_that_see_each_other_are_noticed(qwen, data_of, monkeypatch):
    vlm = vfl.load(qwen, device="cpu")
    encoder = encoder_of(vlm)
    rows = prepare(DataConfig(train=(data_of("image", "image"),)), encoder, method="sft", progress=False).rows
    try_packing(vlm, encoder, [rows[0], rows[1]])
    forward = vlm.model.forward
    monkeypatch.setattr(
        vlm.model,
        "forward",
        lambda **inputs: forward(**inputs | {"attention_mask": torch.ones_like(inputs["input_ids"])}),
    )
    with pytest.raises(InputError, match="see each other"):
        try_packing(vlm, encoder, [rows[0], rows[1]])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"method": "dpo"}, "packing is for method: sft"),
        ({"data": {}}, "up to data.max_length"),
        ({"backward": "after_image"}, "leave one of the two out"),
        ({"attn_implementation": "flash_attention_2"}, "per_device_train_batch_size: 1"),
        ({"trainer": {"train_sampling_strategy": "group_by_length"}}, "leave packing out"),
        ({"trainer": {"packing": True}}, "set packing of the recipe instead"),
        ({}, "zero2"),
    ],
)
def test_what_it_cannot_go_with(changed, said, tmp_path):
    def refused():
        recipe = read_recipe(trained.settings("m", "rows.json", tmp_path, **PACKED | changed))
        check_packing(recipe, trainer_arguments(recipe, torch.float32), 3 if said == "zero2" else 0)

    with pytest.raises(InputError, match=said):
        refused()
