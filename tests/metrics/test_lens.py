"""The logit lens, object correspondence and persistence."""

import json

import pytest
import tiny
import torch

from vfl.engine.layer_trace import trace_prompt
from vfl.engine.states import is_image_token, is_vision
from vfl.errors import InputError
from vfl.metrics import logit_lens
from vfl.metrics.lens import lens
from vfl.metrics.logit_lens import lens_of, top_tokens
from vfl.metrics.persistence import persistence
from vfl.metrics.regions import overlaps, token_regions
from vfl.probes.asking import first_tokens
from vfl.probes.pair import DrawnPair, write_suite


def plain_logits(vlm, encoded):
    with torch.no_grad():
        return vlm.model(**encoded.inputs, position_ids=encoded.positions, use_cache=False).logits[0]


def test_the_lens_at_the_last_state_is_the_models_output(vlm, prompts, untouched):
    encoded = prompts[0]
    probabilities, ids = top_tokens(vlm, trace_prompt(vlm, encoded).hidden[-1][0], k=5)
    expected = plain_logits(vlm, encoded).softmax(-1).topk(5, dim=-1)
    assert torch.equal(ids, expected.indices)
    torch.testing.assert_close(probabilities, expected.values, rtol=0, atol=1e-10)
    here = is_image_token(vlm, encoded)
    assert torch.equal(lens_of(vlm, encoded)[1][-1, :, 0], expected.indices[here, 0])


def test_chunks_do_not_change_the_lens(vlm, prompts, monkeypatch):
    states = trace_prompt(vlm, prompts[0]).hidden[2][0]
    whole = top_tokens(vlm, states, k=3)
    monkeypatch.setattr(logit_lens, "CHUNK_NUMBERS", 1)
    one_by_one = top_tokens(vlm, states, k=3)
    assert torch.equal(whole[1], one_by_one[1])
    torch.testing.assert_close(whole[0], one_by_one[0], rtol=0, atol=1e-12)


def test_persistence_is_the_share_of_unchanged_first_choices(vlm, prompts, untouched):
    result = persistence(vlm, prompts)
    json.dumps(result, allow_nan=False)
    curve = result["curves"]["vision"]
    assert curve["axis"] == "state"
    assert len(curve["value"]) == vlm.num_layers + 1
    assert curve["value"][0] == 1
    shares = []
    for encoded in prompts:
        here = is_image_token(vlm, encoded)
        assert int(here.sum()) <= encoded.num_vision_tokens
        first, second = (vlm.logits(state[0, here]).argmax(-1) for state in trace_prompt(vlm, encoded).hidden[:2])
        shares.append(float((first == second).double().mean()))
    assert curve["value"][1] == pytest.approx(sum(shares) / len(shares))
    assert persistence(vlm, prompts, first="layer_0")["curves"]["vision"]["value"][1] == 1
    text = []
    for encoded in prompts:
        here = ~is_vision(encoded)
        first, last = (vlm.logits(trace_prompt(vlm, encoded).hidden[at][0, here]).argmax(-1) for at in (0, -1))
        text.append(float((first == last).double().mean()))
    assert result["curves"]["text"]["value"][-1] == pytest.approx(sum(text) / len(text))


def test_layers_that_add_nothing_persist(loaded):
    vlm = loaded("qwen2_5_vl")
    with torch.no_grad():
        for layer in vlm.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    result = persistence(vlm, [vlm.ask("how many cats", tiny.picture())])
    assert result["curves"]["vision"]["value"] == [1] * (vlm.num_layers + 1)


def test_an_unknown_first_state_is_refused(vlm, prompts):
    with pytest.raises(InputError, match="first='layer' is unknown; expected one of embedding, layer_0"):
        persistence(vlm, prompts, first="layer")


@pytest.fixture(scope="module")
def boxed(vlm, tmp_path_factory):
    """Two pairs; the first has a box on its target, the second none."""
    first, second = (tiny.picture(seed=seed) for seed in (1, 2))
    texts = {"function": "naming", "question": "is there a cat", "answer": "a", "source_answer": "b", "match": "text"}
    common = {"image": first, "source_image": second, "label": "cat"}
    drawn = [
        DrawnPair(id="box", boxes={"image": [(0, 0, 30, 20)]}, **texts, **common),
        DrawnPair(id="none", **texts, **common),
    ]
    return write_suite(tmp_path_factory.mktemp("boxed"), drawn)


def test_object_tokens_that_spell_the_label_correspond(vlm, boxed, untouched):
    encoded = vlm.ask(boxed[0].question, boxed[0].path("image"))
    probabilities, ids = lens_of(vlm, encoded, k=1)
    on_object = overlaps(token_regions(vlm, encoded), [(0, 0, 30, 20)])
    assert 0 < int(on_object.sum()) < len(on_object)
    said = ids[:, on_object, 0]
    spelled = {int(token): vlm.tokenizer.decode([token]).strip() for token in said.flatten()}
    label = next(word for token, word in spelled.items() if word and token in first_tokens(vlm, [word, word.lower()]))
    result = lens(vlm, [boxed[0].model_copy(update={"label": label}), boxed[1]])
    json.dumps(result, allow_nan=False)
    expected = [
        sum(int(token) in first_tokens(vlm, [label, label.lower()]) for token in state) / len(state) for state in said
    ]
    assert max(expected) > 0
    assert result["curves"]["correspondence"]["value"] == pytest.approx(expected)
    assert result["scalars"]["correspondence"]["value"] == pytest.approx(max(expected))
    assert result["scalars"]["best"]["value"] == expected.index(max(expected))
    assert result["curves"]["correspondence"]["n"] == 1
    assert result["curves"]["confidence"]["n"] == result["curves"]["text_confidence"]["n"] == 4
    expected = probabilities[:, :, 0].double().mean(1)
    bare = lens(vlm, [boxed[0].model_copy(update={"source_image": boxed[0].image})])  # the same image twice
    assert bare["curves"]["confidence"]["value"] == pytest.approx(expected.tolist())
    text = lens_of(vlm, encoded, k=1, here=~is_vision(encoded))[0][:, :, 0].double().mean(1)
    assert bare["curves"]["text_confidence"]["value"] == pytest.approx(text.tolist())
    assert bare["scalars"]["text_confidence"]["value"] == pytest.approx(float(text.mean()))
    assert result["without_object"] == ["none"]
    assert (probabilities > 0).all()
    assert (probabilities <= 1).all()


def test_pairs_without_boxes_or_label_leave_the_object_rows_out(vlm, boxed):
    unlabelled = boxed[0].model_copy(update={"label": None})
    result = lens(vlm, [unlabelled, boxed[1]])
    assert result["scalars"].keys() == {"confidence", "text_confidence"}
    assert result["curves"].keys() == {"confidence", "text_confidence"}
    assert result["without_object"] == ["box", "none"]


def test_first_tokens_are_the_names_first_piece_and_no_boundary_mark(vlm):
    for token in first_tokens(vlm, ["Cat", "cat"]):
        assert vlm.tokenizer.decode([token]).strip()
