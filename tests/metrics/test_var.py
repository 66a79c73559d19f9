"""Attention masses add up to one, respond to edits, and read the query they say."""

import json

import pytest
import torch

from vfl.engine.attention_tap import tapped
from vfl.engine.plan import Plan
from vfl.engine.states import is_vision
from vfl.engine.sweep import sweep
from vfl.errors import InputError
from vfl.metrics.var import masses, svar_layers, var


@pytest.mark.parametrize("query", ["predicts", "token"])
def test_masses_add_up_to_one_in_every_row(vlm, prompts, untouched, query):
    for encoded in prompts:
        parts = masses(vlm, encoded, query=query)
        heads = vlm.parts.decoder.config.num_attention_heads
        assert parts.shape == (3, vlm.num_layers, heads)
        assert (parts >= -1e-12).all()
        torch.testing.assert_close(parts.sum(0), torch.ones(vlm.num_layers, heads).double(), rtol=0, atol=1e-10)


def test_var_of_the_predicting_query_is_the_last_row(vlm, prompts):
    encoded = prompts[0]
    rows = []
    with tapped(vlm, read=lambda layer, weights: rows.append(weights), rows=range(encoded.length)), torch.no_grad():
        vlm.model(**encoded.inputs, position_ids=encoded.positions, use_cache=False)
    expected = torch.stack([weights[0, :, -1][:, is_vision(encoded)].sum(-1) for weights in rows])
    torch.testing.assert_close(masses(vlm, encoded)[0], expected, rtol=0, atol=1e-12)


def test_the_generated_token_is_the_greedy_one(vlm, prompts):
    """The row of the generated token equals the last row of a whole pass over the prompt and that token."""
    encoded = prompts[0]
    token = int(sweep(vlm, encoded, [Plan.own()]).logits[0].argmax())
    embedded = {}
    handle = vlm.parts.decoder.register_forward_pre_hook(
        lambda m, args, kwargs: embedded.update(kwargs), with_kwargs=True
    )
    with torch.no_grad():
        vlm.model(**encoded.inputs, position_ids=encoded.positions, use_cache=False)
        handle.remove()
        states = torch.cat([embedded["inputs_embeds"], vlm.embed(torch.tensor([[token]]))], 1)
        positions = torch.cat([encoded.positions, encoded.positions[..., -1:] + 1], -1)
        rows = []
        with tapped(vlm, read=lambda layer, weights: rows.append(weights[0, :, 0])):
            vlm.parts.decoder(inputs_embeds=states, position_ids=positions, use_cache=False)
    on_vision = torch.stack([row[:, :-1][:, is_vision(encoded)].sum(-1) for row in rows])
    torch.testing.assert_close(masses(vlm, encoded, query="token")[0], on_vision, rtol=0, atol=1e-9)


def test_uniform_attention_sees_the_image_by_its_share_of_positions(vlm, prompts):
    saved = [layer.self_attn.q_proj.weight.clone() for layer in vlm.layers]
    biases = [layer.self_attn.q_proj.bias for layer in vlm.layers]
    kept = [None if bias is None else bias.clone() for bias in biases]
    try:
        with torch.no_grad():
            for layer in vlm.layers:
                layer.self_attn.q_proj.weight.zero_()
                if layer.self_attn.q_proj.bias is not None:
                    layer.self_attn.q_proj.bias.zero_()
        result = var(vlm, prompts)
    finally:
        with torch.no_grad():
            for layer, weight, bias in zip(vlm.layers, saved, kept, strict=True):
                layer.self_attn.q_proj.weight.copy_(weight)
                if bias is not None:
                    layer.self_attn.q_proj.bias.copy_(bias)
    share = sum(encoded.num_vision_tokens / encoded.length for encoded in prompts) / len(prompts)
    assert result["curves"]["vision"]["value"] == pytest.approx([share] * vlm.num_layers)
    first, last = result["options"]["svar_layers"]
    assert result["scalars"]["svar"]["value"] == pytest.approx(share * (last - first + 1))
    values = [value for row in result["heads"] for value in row]
    assert values == pytest.approx([share] * len(values))


def test_svar_is_the_sum_of_the_head_means_over_its_layers(vlm, prompts, untouched):
    result = var(vlm, prompts, layers=(1, 3))
    json.dumps(result, allow_nan=False)
    assert result["scalars"]["svar"]["value"] == pytest.approx(sum(result["curves"]["vision"]["value"][1:4]))
    assert result["options"]["svar_layers"] == [1, 3]
    assert svar_layers(32) == (5, 18)
    assert svar_layers(1) == (0, 0)


@pytest.mark.parametrize("options", [{"layers": (0, 99)}, {"layers": (3, 1)}, {"query": "answer"}])
def test_bad_options_are_refused(vlm, prompts, options):
    with pytest.raises(InputError, match=r"SVAR|query='answer' is unknown"):
        var(vlm, prompts, **options)


@pytest.mark.usefixtures("failing_layer")
@pytest.mark.parametrize("query", ["predicts", "token"])
def test_the_tap_is_gone_after_an_exception(vlm, prompts, query):
    with pytest.raises(RuntimeError, match="a layer failed"):
        var(vlm, prompts, query=query)
    assert vlm.parts.decoder.config._attn_implementation == "sdpa"
