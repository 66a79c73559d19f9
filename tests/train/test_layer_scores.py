"""Scores of layers by training rows: equal to plain loops over gradients, and nothing is left on the model."""

import math

import pytest
import torch

import vfl
from vfl.data import read
from vfl.errors import InputError
from vfl.models.conversation import encoder_of
from vfl.train.adapter.lora import build_lora
from vfl.train.adapter.towers import linear_names
from vfl.train.layers.scores import answer_loss, score_layers
from vfl.train.layers.warmup import warmup_scores
from vfl.train.rows.collate import Collator
from vfl.train.rows.table import write_rows

KINDS = ("image", "text", "image", "images")  # answers of different lengths
ONE = ("image", "text", "images", "image")


def batches_of(vlm, path, folder, size):
    rows = write_rows(read([path]), folder / "rows.arrow")
    collator = Collator(encoder_of(vlm))
    return [collator([rows[n] for n in range(start, start + size)]) for start in range(0, len(rows), size)]


def gradients(vlm, batch):
    """The gradient of each layer's Linear weights, by plain autograd."""
    for parameter in vlm.model.parameters():
        parameter.requires_grad_(True)
    vlm.model.zero_grad()
    answer_loss(vlm.model, batch).backward()
    batches = [
        {name: layer.get_submodule(name).weight.grad.clone() for name in linear_names(layer)} for layer in vlm.layers
    ]
    vlm.model.zero_grad()
    return batches


@pytest.mark.parametrize("family", ["qwen2_5_vl", "paligemma", "llava"])
def test_scores_equal_plain_loops(family, loaded, data_of, tmp_path):
    vlm = loaded(family, dtype="float64", device="cpu")
    batches = batches_of(vlm, data_of(*ONE), tmp_path, 2)
    scored = score_layers(vlm.model, batches)
    rows = batches_of(vlm, data_of(*ONE), tmp_path, 1)
    whole, alone = [gradients(vlm, batch) for batch in batches], [gradients(vlm, row) for row in rows]
    for number, layer in enumerate(vlm.layers):
        weights = [layer.get_submodule(name).weight for name in linear_names(layer)]
        norm = math.sqrt(sum(float(weight.detach().square().sum()) for weight in weights))
        norms = [math.sqrt(sum(float(g.square().sum()) for g in batch[number].values())) for batch in whole]
        assert scored.gradient[number] == pytest.approx(sum(norms) / len(norms) / norm, rel=1e-4)
        squares = [sum(float(g.square().sum()) for g in row[number].values()) for row in alone]
        size = sum(weight.numel() for weight in weights)
        assert scored.fisher[number] == pytest.approx(sum(squares) / len(squares) / size, rel=1e-4)
        for name in linear_names(layer):
            mean = sum(float(batch[number][name].norm()) for batch in whole) / len(whole)
            own = mean / float(layer.get_submodule(name).weight.detach().norm())
            assert scored.modules[name][number] == pytest.approx(own, rel=1e-4)
    assert scored.rows == len(ONE)


def test_similarity_is_the_angle_between_what_enters_and_leaves(qwen, data_of, tmp_path):
    vlm = vfl.load(qwen, dtype="float64", device="cpu")
    (batch,) = batches_of(vlm, data_of("image", "text"), tmp_path, 2)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        states = vlm.model(**inputs, output_hidden_states=True).hidden_states
    real = batch["attention_mask"].bool()
    for number, angle in enumerate(score_layers(vlm.model, [batch]).similarity[:-1]):  # a norm follows the last
        cosine = torch.nn.functional.cosine_similarity(states[number], states[number + 1], dim=-1)[real]
        assert angle == pytest.approx(float((torch.arccos(cosine) / math.pi).mean()), rel=1e-4)


def test_nothing_is_left_on_the_model(qwen, data_of, tmp_path):
    vlm = vfl.load(qwen, device="cpu")
    batches = batches_of(vlm, data_of(*KINDS), tmp_path, 2)
    inputs = {name: value for name, value in batches[0].items() if name != "labels"}
    with torch.no_grad():
        before = vlm.model(**inputs).logits
    wanted = [parameter.requires_grad for parameter in vlm.model.parameters()]
    first, second = score_layers(vlm.model, batches), score_layers(vlm.model, batches)
    assert first == second
    lora = build_lora(vlm.model, range(vlm.num_layers), {"r": 4, "lora_dropout": 0.0})
    moved = [warmup_scores(vlm.model, lora, batches, 1e-2, seed=0) for _ in range(2)]
    assert moved[0] == moved[1]
    assert all(score > 0 for score in moved[0])
    with torch.no_grad():
        assert torch.equal(vlm.model(**inputs).logits, before)
    assert [parameter.requires_grad for parameter in vlm.model.parameters()] == wanted
    assert all(parameter.grad is None for parameter in vlm.model.parameters())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in vlm.layers)


def test_what_cannot_be_scored_is_said(qwen, data_of, tmp_path):
    vlm = vfl.load(qwen, device="cpu")
    with pytest.raises(InputError, match="no rows"):
        score_layers(vlm.model, [])
    (batch,) = batches_of(vlm, data_of("image"), tmp_path, 1)
    with torch.no_grad():
        vlm.layers[1].input_layernorm.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="loss of rows 0 to 0 is nan"):
        score_layers(vlm.model, [batch])
    assert not any(layer._forward_hooks for layer in vlm.layers)
