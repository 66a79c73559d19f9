"""One meaning of "this key is visible", whatever the mask's form."""

import pytest
import tiny
import torch

from vfl.engine.attention_tap import tapped
from vfl.engine.layer_hooks import layer_hooks
from vfl.engine.layer_trace import trace_prompt
from vfl.engine.masks import as_attention_mask, blocked, plain_mask, seen_keys
from vfl.engine.states import forward

ALLOWED = torch.ones(3, 5, dtype=torch.bool).tril(2)[None, None]
CPU = torch.device("cpu")


def additive(hidden, bias=0.0):
    return torch.full((1, 1, 3, 5), bias).masked_fill(~ALLOWED, hidden)


def test_none_boolean_and_additive_masks_show_the_same_keys():
    lowest = torch.finfo(torch.float32).min
    for mask in (None, ALLOWED, additive(lowest), additive(float("-inf"))):
        assert torch.equal(seen_keys(mask, 3, 5, CPU).expand(1, 1, 3, 5), ALLOWED)
        assert torch.equal(plain_mask(mask, 3, 5, CPU), ALLOWED)
    assert seen_keys(None, 3, 5, CPU, causal=False).all()
    for attention in ("sdpa", "eager"):
        assert torch.equal(seen_keys(as_attention_mask(ALLOWED, attention, torch.float16), 3, 5, CPU), ALLOWED)


def test_a_biased_key_is_seen_and_its_bias_kept_when_others_are_cut():
    bias = additive(torch.finfo(torch.float32).min, bias=-2.5)
    assert torch.equal(seen_keys(bias, 3, 5, CPU), ALLOWED)
    edges = torch.zeros(1, 1, 3, 5, dtype=torch.bool)
    edges[..., 0] = True
    cut = blocked(bias, edges)
    assert torch.equal(seen_keys(cut, 3, 5, CPU), ALLOWED & ~edges)
    assert (cut[ALLOWED & ~edges] == -2.5).all()


def test_rows_that_would_lose_a_bias_are_refused():
    with pytest.raises(NotImplementedError, match="adds a bias"):
        plain_mask(additive(float("-inf"), bias=-2.5), 3, 5, CPU)


def test_engine_and_tap_agree_on_a_models_biased_mask(loaded):
    """The tap reads by the bias; the engine, which makes masks of its own, says that it can't."""
    vlm = loaded("llava", dtype="float64")
    encoded = vlm.ask("how many cats", tiny.picture())
    length = encoded.length
    mask = torch.zeros(1, 1, length, length, dtype=torch.float64)
    mask.masked_fill_(~torch.ones(length, length, dtype=torch.bool).tril(), torch.finfo(torch.float64).min)
    biased = mask.clone()
    biased[..., 1:, 0] -= 3

    def weights(mask):
        seen = []

        def enter(layer, state, arguments):
            return state, {**arguments, "attention_mask": mask}

        with layer_hooks(vlm.layers, enter), tapped(vlm, read=lambda layer, weights: seen.append(weights[0, :, 0])):
            forward(vlm, encoded)
        return seen[0]

    plain, ours = weights(mask), weights(biased)
    expected = torch.cat([plain[:, :1] * torch.tensor(-3.0).double().exp(), plain[:, 1:]], dim=1)
    torch.testing.assert_close(ours, expected / expected.sum(-1, keepdim=True), rtol=0, atol=1e-12)

    def enter(layer, state, arguments):
        return state, {**arguments, "attention_mask": biased}

    with layer_hooks(vlm.layers, enter), pytest.raises(NotImplementedError, match="adds a bias"):
        trace_prompt(vlm, encoded)
