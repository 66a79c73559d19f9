"""Adjacent-layer distances: against states taken another way, and the properties of the formulas."""

import json
from itertools import pairwise

import pytest
import tiny
import torch

from vfl.engine.layer_trace import trace_prompt
from vfl.engine.states import is_vision
from vfl.errors import InputError
from vfl.metrics.cosine import adjacent_distances, by_modality, cosine, cosine_distance
from vfl.metrics.proximal import proximal


def test_distances_equal_those_of_a_frame(vlm, prompts, untouched):
    """A layer trace holds all L+1 states, the last one before the final norm."""
    encoded = prompts[1]
    states = torch.stack(trace_prompt(vlm, encoded).hidden)[:, 0]  # (L+1, T, d)
    unit = states / states.norm(dim=-1, keepdim=True)
    distance = 1 - (unit[1:] * unit[:-1]).sum(-1)  # (L, T)
    tau = float(distance.median())
    shares = adjacent_distances(vlm, encoded, tau=tau)
    vision = is_vision(encoded)
    assert vision.sum() == encoded.num_vision_tokens
    for row, here in enumerate((vision, ~vision)):
        torch.testing.assert_close(shares[0, row], distance[:, here].mean(1), rtol=0, atol=1e-10)
        torch.testing.assert_close(shares[1, row], (distance[:, here] <= tau).double().mean(1), rtol=0, atol=1e-10)
    assert 0 < shares[1].mean() < 1


def test_the_last_pair_is_taken_before_the_final_norm(vlm, prompts):
    """Against transformers' hidden_states, whose last entry is normalised: all pairs but the last agree."""
    encoded = prompts[0]
    with torch.no_grad():
        states = vlm.model(
            **encoded.inputs, position_ids=encoded.positions, use_cache=False, output_hidden_states=True
        ).hidden_states
    vision = is_vision(encoded)
    theirs = [float(cosine_distance(a[0], b[0])[vision].mean()) for a, b in pairwise(states)]
    ours = adjacent_distances(vlm, encoded)[0, 0].tolist()
    assert ours[:-1] == pytest.approx(theirs[:-1], abs=1e-9)
    assert abs(ours[-1] - theirs[-1]) > 1e-4


def test_added_deepstack_features_are_part_of_the_next_state(loaded):
    vlm = loaded("qwen3_vl", dtype="float64")
    encoded = vlm.ask("how many cats", tiny.picture())
    trace = trace_prompt(vlm, encoded)
    assert trace.between[0] is not None
    vision = is_vision(encoded)
    expected = cosine_distance(trace.hidden[0][0], trace.hidden[1][0])[vision].mean()
    assert float(adjacent_distances(vlm, encoded)[0, 0, 0]) == pytest.approx(float(expected), abs=1e-12)


def test_layers_that_add_nothing_copy_everything(loaded):
    vlm = loaded("llava")
    with torch.no_grad():
        for layer in list(vlm.layers)[1:3]:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    prompt = [vlm.ask("how many cats", tiny.picture())]
    distance, share = cosine(vlm, prompt), proximal(vlm, prompt)
    for modality in ("vision", "text"):
        assert distance["copying"][modality] == share["redundant"][modality] == [1, 2]
        assert distance["curves"][modality]["value"][1] == pytest.approx(0, abs=1e-6)
        assert share["curves"][modality]["value"][1:3] == [1, 1]


def test_layers_are_listed_by_their_whole_interval():
    """One layer surely passes, one surely does not, and of one nothing can be said."""
    samples = [torch.tensor([[0.1, 0.5 + shift, 0.9]] * 2) for shift in (-0.3, 0.3, -0.3, 0.3)]
    made = by_modality(samples, range(4), "low", lambda value: value <= 0.5, {})
    assert made["low"] == {"vision": [0], "text": [0]}
    assert made["undecided"] == {"vision": [1], "text": [1]}
    alone = by_modality(samples[:1], [0], "low", lambda value: value <= 0.5, {})
    assert (alone["low"]["vision"], alone["undecided"]["vision"]) == ([0, 1], []), "one image has no interval"


def test_distance_is_within_its_range_and_float32_at_least():
    x = torch.randn(4, 16, dtype=torch.bfloat16)
    assert cosine_distance(x, x).dtype == torch.float32
    assert cosine_distance(x, 3 * x).abs().max() < 1e-5
    torch.testing.assert_close(cosine_distance(x, -x), torch.full((4,), 2.0))
    assert cosine_distance(x.double(), x.double()).dtype == torch.float64


def test_results_carry_n_intervals_and_options(vlm, prompts, untouched):
    result = cosine(vlm, iter(prompts), eps=0.3)
    json.dumps(result, allow_nan=False)
    assert result["n"] == 2
    assert result["options"]["eps"] == 0.3
    for name in ("vision", "text"):
        curve = result["curves"][name]
        assert curve["at"] == list(range(vlm.num_layers))
        for low, value, high in zip(curve["low"], curve["value"], curve["high"], strict=True):
            assert 0 <= low <= value <= high <= 2
        assert result["scalars"][name]["value"] == pytest.approx(sum(curve["value"]) / vlm.num_layers)
    near = proximal(vlm, prompts, tau=0.1, share=0.9)
    assert near["options"]["tau"] == 0.1
    for name in ("vision", "text"):
        bound = near["curves"][f"{name}/bound"]["value"]
        assert bound == pytest.approx([0.1 + 1.9 * (1 - share) for share in near["curves"][name]["value"]])
        assert near["curves"][f"{name}/distance"]["value"] == result["curves"][name]["value"]
        assert all(mean <= most for mean, most in zip(result["curves"][name]["value"], bound, strict=True))


def test_one_prompt_has_no_interval_and_none_is_refused(vlm, prompts):
    result = cosine(vlm, prompts[:1])
    assert result["curves"]["vision"]["low"] == [None] * vlm.num_layers
    with pytest.raises(InputError, match="without a single sample"):
        cosine(vlm, [])


@pytest.mark.usefixtures("failing_layer")
def test_hooks_are_gone_after_an_exception(vlm, prompts):
    before = [len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in vlm.layers]
    with pytest.raises(RuntimeError, match="a layer failed"):
        cosine(vlm, prompts)
    assert [len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in vlm.layers] == before
