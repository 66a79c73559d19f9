"""Functional and informational redundancy, and the layers that are recommended from the curves."""

import json
import math
from pathlib import Path
from shutil import copyfile

import numpy as np
import pytest
import tiny
import torch

from vfl.engine.states import is_image_token
from vfl.errors import InputError
from vfl.metrics.cosine import cosine
from vfl.metrics.functional import (
    functional,
    left_out_errors,
    left_out_guesses,
    redundant_layers,
    states_and_attention,
)
from vfl.metrics.informational import ball_counts, informational
from vfl.metrics.late_entry import late_entry
from vfl.metrics.measure import known_metrics
from vfl.metrics.prompts import prompts_of
from vfl.metrics.recommended import entry_and_exit, recommended
from vfl.metrics.var import var


def test_ball_counts_are_those_of_all_pairs(vlm, prompts, untouched):
    from vfl.engine.layer_trace import trace_prompt

    encoded, radius = prompts[0], 0.3
    states = trace_prompt(vlm, encoded).hidden
    here = is_image_token(vlm, encoded)
    exceed, fewest, most, shuffled = ball_counts(vlm, encoded, radius)
    for layer in range(vlm.num_layers):
        old, new = (states[at][0, here] for at in (layer, layer + 1))
        near = torch.stack([torch.cosine_similarity(row[None], new, dim=-1) for row in old]) >= 1 - radius
        assert float(exceed[layer]) == pytest.approx(1 - float(near.diagonal().double().mean()))
        assert (int(fewest[layer]), int(most[layer])) == (int(near.sum(1).min()), int(near.sum(1).max()))
        assert float(shuffled[layer]) == pytest.approx(float(near.double().mean()))


def test_the_bounds_of_a_model_are_ordered(vlm, prompts, untouched):
    result = informational(vlm, prompts)
    json.dumps(result, allow_nan=False)
    curves = {name: np.array(curve["value"]) for name, curve in result["curves"].items()}
    assert curves["support"] == pytest.approx(math.log(int(is_image_token(vlm, prompts[0]).sum())))
    assert (curves["information_lower"] <= curves["information_kl"] + 1e-9).all()
    assert curves["gap_bound"] == pytest.approx(2 * curves["entropy_upper"])
    assert (curves["information_lower"] >= 0).all()
    assert (
        curves["entropy_upper"] <= np.minimum(curves["fano"], curves["support"] - curves["information_kl"]) + 1e-9
    ).all()
    assert sorted(result["redundant"] + result["undecided"]) == list(range(vlm.num_layers))
    assert 0 < result["undecided_share"] <= 1
    units = {name: known_metrics()["informational"].unit_of(name) for name in curves}
    assert units["gap_bound"] != units["entropy_upper"] == units["information_kl"] == "nats"
    with pytest.raises(InputError, match="radius=3"):
        informational(vlm, prompts, radius=3)


def test_layers_that_add_nothing_are_redundant(loaded, pairs):
    vlm = loaded("qwen2_5_vl")
    with torch.no_grad():
        for layer in vlm.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    encoded = vlm.ask("how many cats", tiny.picture())
    assert not ball_counts(vlm, encoded, 0.05)[0].any(), "no token moves"
    result = functional(vlm, pairs, clusters=2)
    json.dumps(result, allow_nan=False)
    assert result["redundant"] == {"naming": [], "reading": []}, "answers that no other image has can only be guessed"
    assert "guessing" in result["undecided"]["naming"]
    for name in ("assumed_bound", "unique"):
        assert result["curves"][f"naming/{name}"]["value"] == pytest.approx([0] * vlm.num_layers, abs=1e-5)
    assert "reading/unique" not in result["curves"], "two images can't be sorted into two clusters"


def copies(pair, folder, count):
    """The pair several times, with files of its own each."""
    made = []
    for number in range(count):
        names = {which: f"{number}-{Path(getattr(pair, which)).name}" for which in ("image", "source_image")}
        for which, name in names.items():
            copyfile(pair.path(which), folder / name)
        copy = pair.model_copy(update=names)
        copy._folder = folder
        made.append(copy)
    return made


def test_alike_images_tell_the_answer_and_the_layers_not_looked_at_are_redundant(loaded, pairs, tmp_path):
    vlm = loaded("qwen2_5_vl")
    with torch.no_grad():
        for layer in vlm.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    result = functional(vlm, copies(pairs[0], tmp_path, 3), small=0.999, clusters=0)
    attention = np.array(result["curves"]["naming/attention"]["value"])
    expected = np.flatnonzero(attention <= 0.999 * attention.max()).tolist()
    assert 0 < len(expected) < vlm.num_layers
    assert result["redundant"] == {"naming": expected}
    assert result["undecided"] == {}
    assert result["scalars"]["naming/error"]["value"] < result["scalars"]["naming/guessing"]["value"]
    assert (
        result["curves"]["naming/attention"]["value"]
        == var(vlm, prompts_of(vlm, pairs[:1], ("image", "source_image")))["curves"]["vision"]["value"]
    )


def test_a_layer_is_redundant_by_its_interval_its_attention_and_what_was_measured():
    rng = np.random.default_rng(0)
    count = 30
    guesses = np.full(count, 0.6)
    errors = np.stack([0.2 + 0.01 * rng.random(count)] * 2 + [0.2 + 0.4 * rng.random(count), guesses + 0.1], axis=1)
    attention = np.tile([0.1, 0.1, 0.1], (count, 1))
    assert redundant_layers(errors, guesses, attention, small=1.0) == [0]
    assert redundant_layers(errors, guesses, attention, small=0.5) == [], "the image is looked at"
    assert redundant_layers(errors, guesses - 0.5, attention, small=1.0) == [], "guessing is as good"
    noisy = errors + rng.normal(0, 0.3, errors.shape)
    assert abs((noisy[:, 0] - noisy[:, 1]).mean()) < 0.1
    assert redundant_layers(noisy, guesses, attention, eps=0.1, small=1.0) == [], "the interval is wide"


def test_guessing_leaves_the_guessed_answer_out():
    targets = np.eye(3)[[0, 0, 1, 2]]
    expected = [((row - np.delete(targets, at, 0).mean(0)) ** 2).sum() for at, row in enumerate(targets)]
    assert left_out_guesses(targets) == pytest.approx(np.array(expected))


def test_left_out_errors_are_those_of_refitting():
    rng = np.random.default_rng(0)
    states, targets = rng.normal(size=(7, 3)), rng.normal(size=(7, 2))
    # the closed form centres and scales on all rows; refit with the same centre and strength
    centred = states - states.mean(0)
    strength = 0.1 * np.trace(centred @ centred.T) / 7
    expected = []
    for out in range(7):
        rest = np.arange(7) != out
        design = np.hstack([centred, np.ones((7, 1))])
        penalty = np.diag([strength] * 3 + [0])
        weights = np.linalg.solve(design[rest].T @ design[rest] + penalty, design[rest].T @ targets[rest])
        expected.append(((targets[out] - design[out] @ weights) ** 2).sum())
    assert left_out_errors(states, targets, 0.1) == pytest.approx(np.array(expected))


def test_functional_curves_are_of_the_pooled_states(vlm, pairs, untouched):
    result = functional(vlm, pairs)
    json.dumps(result, allow_nan=False)
    states = np.stack([states_and_attention(vlm, e)[0] for e in prompts_of(vlm, pairs[:1], ("image", "source_image"))])
    assert np.linalg.norm(states, axis=-1) == pytest.approx(np.ones(states.shape[:2]))
    error = result["curves"]["naming/error"]
    assert error["axis"] == "state"
    assert len(error["value"]) == vlm.num_layers + 1
    gain = result["curves"]["naming/gain"]["value"]
    assert gain == pytest.approx(-np.diff(error["value"]))
    with pytest.raises(InputError, match="ridge=0"):
        functional(vlm, pairs, ridge=0)


def test_the_rule_stops_at_the_first_layer_that_is_needed():
    distance = [0.01, 0.02, 0.2, 0.01, 0.01, 0.01]
    attention = [0.01, 0.02, 0.3, 0.4, 0.05, 0.01]
    assert entry_and_exit(distance, attention) == (2, 4)
    assert entry_and_exit([0.2, *distance[1:]], attention) == (0, 4), "moved states are not skipped"
    assert entry_and_exit(distance, [0.3, *attention[1:]]) == (0, 4), "nor what is looked at"
    assert entry_and_exit(distance, [0.4] * 6) == (0, 6)
    entry, exit = entry_and_exit([0.0] * 6, attention)
    assert entry <= 3 < exit, "the layer that looks at the image most is never skipped"


def test_the_recommendation_is_run(vlm, pairs, untouched):
    result = recommended(vlm, pairs[:1], eps=2.0, small=0.9, tokens=2)
    json.dumps(result, allow_nan=False)
    prompts = list(prompts_of(vlm, pairs[:1]))
    assert result["curves"]["distance"]["value"] == cosine(vlm, prompts)["curves"]["vision"]["value"]
    assert result["curves"]["attention"]["value"] == var(vlm, prompts)["curves"]["vision"]["value"]
    entry, exit = (int(result["scalars"][name]["value"]) for name in ("entry", "exit"))
    assert (entry, exit) == entry_and_exit(
        result["curves"]["distance"]["value"], result["curves"]["attention"]["value"], 2.0, 0.9
    )
    assert 0 <= entry < exit <= vlm.num_layers
    assert [way["name"] for way in result["skips"]] == ["none", f"entry {entry}", f"exit {exit}", "both"]
    accuracy = result["curves"]["naming/accuracy"]
    assert accuracy["value"][0] == 1
    entered = late_entry(vlm, pairs[:1], ks=[entry])["curves"]["naming/logprob"]["value"][-1]
    assert result["curves"]["naming/logprob"]["value"][1] == pytest.approx(entered)
    skipped = entry + vlm.num_layers - exit
    text, length = prompts[0].length - prompts[0].num_vision_tokens, prompts[0].length
    share = (skipped * (text + 1) + (vlm.num_layers - skipped) * (length + 1)) / (vlm.num_layers * (length + 1))
    assert result["scalars"]["cache"]["value"] == pytest.approx(share)
    assert result["scalars"]["speedup"]["value"] > 0
    with pytest.raises(InputError, match="small=1"):
        recommended(vlm, pairs, small=1)
