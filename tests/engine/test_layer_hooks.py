"""One layer-hook context and one cutter of a layer's arguments: what they report, change and refuse."""

import pytest
import tiny
import torch

from vfl.engine.layer_hooks import layer_hooks
from vfl.engine.layer_inputs import cut_argument
from vfl.engine.layer_trace import trace_prompt
from vfl.engine.rows import cut_tokens, tokens_of
from vfl.engine.states import forward


@pytest.fixture(scope="module", params=["llava", "gemma3", "qwen3_vl"])
def vlm(request, loaded):
    return loaded(request.param, dtype="float64")


@pytest.fixture(scope="module")
def encoded(vlm):
    return vlm.ask("how many cats", tiny.picture())


def hooks(model):
    return [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()]


def test_every_layer_is_reported_in_order_with_what_it_is_given_and_gives(vlm, encoded):
    seen = []
    with layer_hooks(
        vlm.layers,
        lambda layer, state, arguments: seen.append(("in", layer, state, set(arguments))),
        lambda layer, state, arguments: seen.append(("out", layer, state, set(arguments))),
    ):
        forward(vlm, encoded)
    assert [(way, layer) for way, layer, *_ in seen] == [(w, n) for n in range(vlm.num_layers) for w in ("in", "out")]
    trace = trace_prompt(vlm, encoded)
    for way, layer, state, arguments in seen:
        assert "hidden_states" not in arguments or way == "out"
        if way == "in":
            assert torch.equal(state, trace.hidden[layer])
    assert torch.equal(seen[-1][2], trace.hidden[-1])


def test_what_they_return_is_gone_on_with_and_only_at_the_layers_asked_for(vlm, encoded):
    trace = trace_prompt(vlm, encoded)
    outputs = {}

    def double(layer, state, arguments):
        return 2 * state, arguments

    def keep(layer, state, arguments):
        outputs[layer] = state

    with layer_hooks(vlm.layers, double, only=[0]), layer_hooks(vlm.layers, leave=keep):
        forward(vlm, encoded)
    with torch.no_grad():
        arguments = {"attention_mask": trace.masks[0], **trace.arguments[0]}
        expected = vlm.layers[0](2 * trace.hidden[0], **arguments)
    torch.testing.assert_close(outputs[0], expected if torch.is_tensor(expected) else expected[0], rtol=0, atol=1e-12)
    zero = layer_hooks(vlm.layers, leave=lambda layer, state, arguments: torch.zeros_like(state), only=[1])
    with zero, layer_hooks(vlm.layers, lambda layer, state, arguments: outputs.update({layer: state}), only=[2]):
        forward(vlm, encoded)
    between = trace.between[1]
    expected = torch.zeros_like(outputs[2]) if between is None else between
    torch.testing.assert_close(outputs[2], expected, rtol=0, atol=1e-12)


def test_layers_run_from_within_are_not_reported(vlm, encoded):
    runs = []

    def again(layer, state, arguments):
        runs.append(layer)
        with torch.no_grad():
            vlm.layers[layer](state, **{**arguments, "past_key_values": None})

    with layer_hooks(vlm.layers, again):
        forward(vlm, encoded)
    assert runs == list(range(vlm.num_layers))


def test_hooks_are_gone_after_an_exception_inside_or_outside_of_them(vlm, encoded):
    def fail(layer, state, arguments):
        raise RuntimeError("stop")

    forward(vlm, encoded)
    before = hooks(vlm.model)  # Transformers may have some of its own
    for enter, leave in ((fail, None), (None, fail)):
        with pytest.raises(RuntimeError, match="stop"), layer_hooks(vlm.layers, enter, leave):
            forward(vlm, encoded)
        assert hooks(vlm.model) == before
    with pytest.raises(RuntimeError, match="stop"), layer_hooks(vlm.layers, fail):
        raise RuntimeError("stop")
    assert hooks(vlm.model) == before


def test_cut_positions_are_those_of_the_tokens(vlm, encoded):
    trace = trace_prompt(vlm, encoded)
    tokens = cut_tokens(tokens_of(trace), 2, 5)
    for whole, cut in zip(trace.arguments, tokens.arguments, strict=True):
        for ours, theirs in zip(cut["position_embeddings"], whole["position_embeddings"], strict=True):
            assert torch.equal(ours, theirs[..., 2:5, :])
        if whole.get("position_ids") is not None:
            assert torch.equal(cut["position_ids"], whole["position_ids"][..., 2:5])


def test_an_unknown_argument_with_an_entry_per_token_is_refused():
    def cut(part):
        return part[..., :2, :]

    assert cut_argument("flag", True, 5, cut) is True
    assert cut_argument("scale", torch.ones(3), 5, cut).shape == (3,)
    with pytest.raises(NotImplementedError, match="'token_kinds'"):
        cut_argument("token_kinds", torch.ones(1, 5), 5, cut)
