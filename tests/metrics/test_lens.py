"""The logit lens and persistence."""

import json

import pytest
import tiny
import torch

import vfl
from vfl.engine.streams import frame_of_prompt
from vfl.errors import InputError
from vfl.metrics import logit_lens
from vfl.metrics.logit_lens import top_tokens
from vfl.metrics.persistence import likeliest_tokens, persistence
from vfl.metrics.states import is_image_token


def plain_logits(vlm, encoded):
    with torch.no_grad():
        return vlm.model(**encoded.inputs, position_ids=encoded.positions, use_cache=False).logits[0]


def test_the_lens_at_the_last_state_is_the_models_output(vlm, prompts, untouched):
    encoded = prompts[0]
    probabilities, ids = top_tokens(vlm, frame_of_prompt(vlm, encoded).hidden[-1][0], k=5)
    expected = plain_logits(vlm, encoded).softmax(-1).topk(5, dim=-1)
    assert torch.equal(ids, expected.indices)
    torch.testing.assert_close(probabilities, expected.values, rtol=0, atol=1e-10)
    here = is_image_token(vlm, encoded)
    assert torch.equal(likeliest_tokens(vlm, encoded)[-1], expected.indices[here, 0])


def test_chunks_do_not_change_the_lens(vlm, prompts, monkeypatch):
    states = frame_of_prompt(vlm, prompts[0]).hidden[2][0]
    whole = top_tokens(vlm, states, k=3)
    monkeypatch.setattr(logit_lens, "CHUNK_NUMBERS", 1)
    one_by_one = top_tokens(vlm, states, k=3)
    assert torch.equal(whole[1], one_by_one[1])
    torch.testing.assert_close(whole[0], one_by_one[0], rtol=0, atol=1e-12)


def test_persistence_is_the_share_of_unchanged_first_choices(vlm, prompts, untouched):
    found = persistence(vlm, prompts)
    json.dumps(found, allow_nan=False)
    curve = found["curves"]["vision"]
    assert curve["axis"] == "state"
    assert len(curve["value"]) == vlm.num_layers + 1
    assert curve["value"][0] == 1
    shares = []
    for encoded in prompts:
        here = is_image_token(vlm, encoded)
        assert int(here.sum()) <= encoded.num_vision_tokens
        first, second = (vlm.logits(state[0, here]).argmax(-1) for state in frame_of_prompt(vlm, encoded).hidden[:2])
        shares.append(float((first == second).double().mean()))
    assert curve["value"][1] == pytest.approx(sum(shares) / len(shares))
    assert persistence(vlm, prompts, first="layer_0")["curves"]["vision"]["value"][1] == 1


def test_layers_that_add_nothing_persist(tiny_folder):
    vlm = vfl.load(tiny_folder("qwen2_5_vl"))
    with torch.no_grad():
        for layer in vlm.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    found = persistence(vlm, [vlm.ask("how many cats", tiny.picture())])
    assert found["curves"]["vision"]["value"] == [1] * (vlm.num_layers + 1)


def test_an_unknown_first_state_is_refused(vlm, prompts):
    with pytest.raises(InputError, match="first='layer' is unknown; expected one of embedding, layer_0"):
        persistence(vlm, prompts, first="layer")
