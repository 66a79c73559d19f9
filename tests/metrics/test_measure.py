"""Metrics by name: all of them, on every family, as JSON; what can't be measured is refused before anything runs."""

import json

import numpy as np
import pytest
import tiny
import torch

from vfl.errors import InputError
from vfl.metrics import cosine, drop
from vfl.metrics.measure import known_metrics, measure_named
from vfl.metrics.prompts import prompts_of
from vfl.stats import wilson

KNOWN = tuple(known_metrics())
FEW = {
    "drop": {"ks": [2]},
    "mask": {"ks": [1]},
    "late_entry": {"ks": [1]},
    "injection": {"ns": [1]},
    "token_ablation": {"gradient_steps": 1},
    "knockout": {"windows": {"one": [1, 1]}},
    "head_masking": {"ks": [1], "draws": 1, "stages": ["early"]},
    "recommended": {"timing": False},  # seconds differ from run to run
}
BOXES_ONLY = ("visual_prompt", "token_ablation")  # these pairs have none


@pytest.fixture(scope="module")
def measured(vlm, pairs):
    return measure_named(vlm, KNOWN, pairs[:2], options=FEW)


def test_every_metric_is_plain_data_with_n_and_intervals(measured):
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured
    assert list(measured) == list(KNOWN)
    for name, result in measured.items():
        assert result["n"] == 2, name
        assert result["scalars"] or name in BOXES_ONLY, name
        assert result["options"], name
        for entry in result["scalars"].values():
            assert entry.keys() == {"value", "low", "high", "n"}, name
        for curve in result["curves"].values():
            assert curve.keys() == {"axis", "at", "value", "low", "high", "n"}, name
            assert len(curve["at"]) == len(curve["value"]) == len(curve["low"]) == len(curve["high"]), name
            for low, value, high in zip(curve["low"], curve["value"], curve["high"], strict=True):
                assert low is None or low - 1e-9 <= value <= high + 1e-9, name


@pytest.mark.usefixtures("untouched")
def test_measuring_twice_is_the_same_and_leaves_the_model_and_the_random_state_alone(vlm, pairs, measured):
    before = torch.random.get_rng_state()
    assert measure_named(vlm, KNOWN, pairs[:2], options=FEW) == measured
    assert torch.equal(torch.random.get_rng_state(), before)


def test_both_images_of_a_pair_are_one_cluster(vlm, pairs):
    """The pair again has the same answers, and tells nothing new."""
    once, twice = (drop(vlm, pairs[:1] * times, ks=[1]) for times in (1, 2))
    assert [result["scalars"]["naming/accuracy"]["n"] for result in (once, twice)] == [2, 4]
    for name in ("low", "high"):
        assert once["scalars"]["naming/accuracy"][name] == twice["scalars"]["naming/accuracy"][name]
    assert once["scalars"]["naming/accuracy"]["low"] == pytest.approx(float(wilson(np.array(1.0), np.array(1.0))[0]))
    assert once["curves"]["naming/logprob"]["low"] == [None, None], "one pair has no interval"


def test_prompts_on_one_image_are_one_cluster(vlm):
    picture, other = tiny.picture(seed=0), tiny.picture(seed=1)
    questions = ("how many cats", "is there a cat", "where is the cat")
    alike = cosine(vlm, [vlm.ask(question, picture) for question in questions])
    assert alike["n"] == 3
    assert alike["scalars"]["text"]["low"] is None
    mixed = cosine(vlm, [vlm.ask(questions[0], image) for image in (picture, other)])
    assert mixed["scalars"]["text"]["low"] is not None


def test_names_say_which_function_is_called_with_which_options(vlm, pairs):
    options = {"cosine": {"eps": 0.3}, "drop": {"ks": [0, 1]}}
    results = measure_named(vlm, ["drop", "cosine"], pairs[:1], options=options)
    assert list(results) == ["drop", "cosine"]
    assert results["cosine"] == cosine(vlm, prompts_of(vlm, pairs[:1]), eps=0.3)
    assert results["drop"]["options"]["ks"] == [0, 1]


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["cosine", "cosinus"], None, "'cosinus'; choose from mask, late_entry"),
        (["cosine"], {"vra": {}}, "'vra'; choose from"),
        (["cosine"], {"var": {}}, "var, not measured here"),
        (["cosine"], {"cosine": {"epsilon": 1}}, "no option epsilon; it takes eps"),
    ],
)
def test_unknown_names_and_options_are_refused(vlm, pairs, names, options, message):
    with pytest.raises(InputError, match=message):
        measure_named(vlm, names, pairs, options=options)


def test_no_pairs_and_training_mode_are_refused(vlm, pairs):
    with pytest.raises(InputError, match="No probe pairs"):
        measure_named(vlm, ["cosine"], [])
    vlm.model.train()
    try:
        with pytest.raises(InputError, match="training mode"):
            measure_named(vlm, ["cosine"], pairs)
    finally:
        vlm.model.eval()


@pytest.mark.usefixtures("failing_layer")
@pytest.mark.parametrize("name", KNOWN)
def test_nothing_is_left_after_an_exception(vlm, pairs, name):
    def hooks():
        return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in vlm.model.modules()]

    before = hooks()
    if name in BOXES_ONLY:
        boxes = {"image": [[0.0, 0.0, 20.0, 16.0]]}
        pairs = [pair.model_copy(update={"boxes": boxes, "label": "cat"}) for pair in pairs]
    with pytest.raises(RuntimeError, match="a layer failed"):
        measure_named(vlm, [name], pairs)
    assert hooks() == before
    assert vlm.parts.decoder.config._attn_implementation == "sdpa"
