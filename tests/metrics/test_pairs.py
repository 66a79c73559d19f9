"""Swapping and dropping on probe pairs: against the sweep asked by hand."""

import json
from itertools import product

import numpy as np
import pytest

from vfl.engine.image_cache import prefill
from vfl.engine.plan import Plan
from vfl.engine.sweep import sweep
from vfl.errors import InputError
from vfl.metrics.accuracy import tolerated
from vfl.metrics.drop import drop
from vfl.metrics.edited_prompts import question_on, reply
from vfl.metrics.swap import swap
from vfl.metrics.visual_prompt import visual_prompt
from vfl.probes.asking import MAX_NEW_TOKENS, first_tokens, likeliest_letter, question_of


def answers(vlm, pair, which, plans):
    encoded = vlm.ask(question_of(vlm, pair), pair.path(which))
    answer = pair.source_answer if which == "source_image" else pair.answer
    return sweep(vlm, encoded, plans, answers=[answer], max_new_tokens=MAX_NEW_TOKENS[pair.match])


def test_drop_is_accuracy_with_the_last_layers_hidden(vlm, pairs, untouched):
    result = drop(vlm, pairs)
    json.dumps(result, allow_nan=False)
    assert result["n"] == len(pairs)
    for function in ("naming", "reading"):
        mine = [pair for pair in pairs if pair.function == function]
        curve = result["curves"][f"{function}/accuracy"]
        assert curve["axis"] == "k"
        assert curve["at"] == list(range(vlm.num_layers + 1))
        assert curve["n"] == 2 * len(mine)
        plans = [Plan.hide(range(vlm.num_layers - k, vlm.num_layers)) for k in curve["at"]]
        right, logprob = [], []
        for pair, which in product(mine, ("image", "source_image")):
            asked = answers(vlm, pair, which, plans)
            right.append([pair.correct(text, which) for text in asked.texts])
            logprob.append(asked.answer_logprobs[:, 0].tolist())
        assert curve["value"] == [sum(at_k) / len(right) for at_k in zip(*right, strict=True)]
        expected = [sum(at_k) / len(right) for at_k in zip(*logprob, strict=True)]
        assert result["curves"][f"{function}/logprob"]["value"] == pytest.approx(expected)
        # the suite's answers are the model's own
        assert result["scalars"][f"{function}/accuracy"]["value"] == curve["value"][0] == 1
        # blind, it gives both images of a pair one answer
        assert result["scalars"][f"{function}/no_image"]["value"] == curve["value"][-1] <= 0.5


@pytest.mark.parametrize("metric", [lambda vlm, pairs: drop(vlm, pairs, ks=[0]), visual_prompt])
def test_answers_that_are_cut_are_told(vlm, boxed, metric, caplog):
    result = metric(vlm, [pair.limited(2) for pair in boxed[:1]])
    assert result["cut"] == {"naming": 1.0}
    assert "100% of naming" in caplog.text
    assert "--max-new-tokens" in caplog.text


def test_some_ks_only_and_the_tolerated_one(vlm, pairs):
    some = drop(vlm, pairs[:1], ks=[vlm.num_layers, 2], tolerance=0.0)
    curve = some["curves"]["naming/accuracy"]
    assert curve["at"] == some["options"]["ks"] == [0, 2, vlm.num_layers]
    held = some["scalars"]["naming/tolerated"]["value"]
    assert held == max(k for k, value in zip(curve["at"], curve["value"], strict=True) if value >= curve["value"][0])
    assert drop(vlm, pairs[:1], ks=[4], tolerance=1.0)["scalars"]["naming/tolerated"]["value"] == 4
    with pytest.raises(InputError, match=f"the model has {vlm.num_layers}"):
        drop(vlm, pairs, ks=[vlm.num_layers + 1])


def test_what_is_tolerated_has_an_interval_that_narrows_with_samples():
    def of(samples, falls, **how):
        """A fall at each point after the plain model's; the same samples fall."""
        right = np.ones((samples, 1 + len(falls)))
        for at, fall in enumerate(falls, start=1):
            right[: round(fall * samples), at] = 0
        return tolerated(right, [0, 2, 4, 8], 0.05, **({"clusters": range(samples)} | how))

    falls = (0.0, 0.1, 0.5)
    assert of(2000, falls) == {"value": 2, "low": 2, "high": 2, "n": 2000}
    few = of(10, falls)
    assert (few["low"], few["value"], few["high"]) == (0, 2, 8), "ten samples show nothing"
    in_clusters = of(2000, falls, clusters=[at // 200 for at in range(2000)])
    assert (in_clusters["low"], in_clusters["value"], in_clusters["high"]) == (0, 2, 8), "nor do ten clusters"
    assert of(40, (0.05, 0.05, 0.05))["value"] == 8, "the tolerance itself is within it"
    half = tolerated(1 - np.eye(2).repeat(500, 0), [0, 2], 0.05, range(1000))
    assert half["value"] == half["high"] == 2, "what is won pays for what is lost"


def test_swap_is_the_share_of_answers_that_change(vlm, pairs, untouched):
    result = swap(vlm, pairs)
    json.dumps(result, allow_nan=False)
    for function in ("naming", "reading"):
        mine = [pair for pair in pairs if pair.function == function]
        curve = result["curves"][f"{function}/changed"]
        assert curve["n"] == len(mine)
        changed = [0] * vlm.num_layers
        for pair in mine:
            source = prefill(vlm, vlm.ask(question_of(vlm, pair), pair.path("source_image")))
            plans = [Plan.own(), *(Plan.swap([layer], source) for layer in range(vlm.num_layers))]
            baseline, *swapped = answers(vlm, pair, "image", plans).texts
            changed = [c + pair.changed(text, baseline) for c, text in zip(changed, swapped, strict=True)]
        assert curve["value"] == [c / len(mine) for c in changed]
        assert not any(result["curves"][f"{function}/control"]["value"]), "the control image is the target"
        assert result["scalars"][f"{function}/accuracy"]["value"] == 1
        assert result["scalars"][f"{function}/kept"]["value"] == 1
        peak = int(result["scalars"][f"{function}/peak"]["value"])
        assert result["scalars"][f"{function}/peak_changed"]["value"] == max(curve["value"]) == curve["value"][peak]


def test_a_function_that_the_model_cannot_answer_has_no_curve(vlm, pairs):
    wrong = [pair.model_copy(update={"answer": "never said"}) if pair.function == "naming" else pair for pair in pairs]
    result = swap(vlm, wrong)
    assert result["scalars"]["naming/accuracy"]["value"] == result["scalars"]["naming/kept"]["value"] == 0
    assert "naming/changed" not in result["curves"]
    assert "reading/changed" in result["curves"]


@pytest.mark.parametrize("metric", [swap, drop])
def test_no_pairs_are_refused(vlm, metric):
    with pytest.raises(InputError, match="without probe pairs"):
        metric(vlm, [])


def test_a_letter_is_the_likeliest_first_token_unless_text_is_asked_for(vlm, pairs, untouched):
    """Also where the answer would be something else: a random model begins with no letter."""
    plans = [Plan.own(), Plan.hide(range(vlm.num_layers))]
    encoded = vlm.ask(question_of(vlm, pairs[0]), pairs[0].path("image"))
    logits = sweep(vlm, encoded, plans).logits
    tokens = {letter: first_tokens(vlm, [letter]) for letter in ("A", "B", "C")}
    own, blind = (max(tokens, key=lambda letter, row=row: float(row[tokens[letter]].max())) for row in logits)
    pair = pairs[0].model_copy(update={"answer": own, "source_answer": own, "choices": list(tokens), "match": "letter"})
    result = drop(vlm, [pair], ks=[vlm.num_layers])
    right = [reply(vlm, question_on(vlm, pair, "image", pair.path("image"))).right]
    assert right == [True]
    assert result["options"]["letters"] == "logits"
    assert result["scalars"]["naming/chance"]["value"] == pytest.approx(1 / 3)
    assert result["curves"]["naming/accuracy"]["value"][0] >= 0.5, "right on the image whose letter it is"
    assert result["scalars"]["naming/no_image"]["value"] == float(blind == own)
    read = drop(vlm, [pair.lettered("text")], ks=[vlm.num_layers])
    assert read["options"]["letters"] == "text"
    said = [(answers(vlm, pairs[0], which, plans[:1]).texts[0], which) for which in ("image", "source_image")]
    assert read["scalars"]["naming/accuracy"]["value"] == sum(pair.correct(text, which) for text, which in said) / 2
    with pytest.raises(InputError, match="same token"):
        likeliest_letter(vlm, ["A", "A"], logits[0])
