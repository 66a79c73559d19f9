"""Answers and scores under a plan are those of the sweep, of `vfl evaluate` and of `vfl skip` under the same plan."""

import pytest
import tiny

from vfl.engine.hidden_vision import vision_hidden
from vfl.engine.plan import Plan
from vfl.engine.skip.running import generate
from vfl.engine.skip.skip import Skip
from vfl.engine.sweep import sweep
from vfl.errors import InputError
from vfl.evaluate.answers import answer, ids_of, text_of
from vfl.evaluate.batches import encode_batch
from vfl.lmms_eval.asking import Planned, forced
from vfl.lmms_eval.layers import LayerPlan
from vfl.lmms_eval.requests import item_of

QUESTIONS = ("How many cats?", "What text can you read in the image? Answer with the text only.", "Where is it?")
CHOICES = ("3", "a dog and a cat", "no")


def questions(vlm, count=5):
    return [item_of(vlm, f"q{i}", "task", QUESTIONS[i % 3], [tiny.picture(seed=i)], 6) for i in range(count)]


def encoded(vlm, item):
    return vlm.encode(item.messages, [opened() for opened in item.images])


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl", "llava", "paligemma"])
def vlm(request, loaded):
    return loaded(request.param, dtype="float64")


def test_without_a_plan_answers_are_those_of_evaluate(vlm):
    items = questions(vlm)
    assert Planned(vlm, LayerPlan(), batch=4).answers(items) == [one.text for one in answer(vlm, items)]


@pytest.mark.parametrize("batch", [1, 4])
def test_hidden_layers_answer_and_score_as_the_sweep_does(vlm, batch):
    items = questions(vlm)
    hidden = tuple(range(1, vlm.num_layers))
    planned = Planned(vlm, LayerPlan(hidden), batch=batch)
    answers = planned.answers(items)
    given = [CHOICES[i % 3] for i in range(len(items))]
    for item, text, choice, scored in zip(items, answers, given, planned.scores(items, given), strict=True):
        swept = sweep(vlm, encoded(vlm, item), [Plan.hide(hidden)], answers=[choice], max_new_tokens=6)
        assert text == swept.texts[0]
        assert scored.logprob == pytest.approx(float(swept.answer_logprobs[0, 0]), abs=1e-6)


def test_what_the_model_says_by_itself_is_greedy_and_nothing_else(vlm):
    part = encode_batch(vlm, questions(vlm, 1))
    hidden = range(1, vlm.num_layers)
    (ids,) = ids_of(vlm, part, hidden)  # not its text, which other tokens may make up too
    with vision_hidden(vlm, part.inputs["input_ids"], hidden):
        assert forced(vlm, part.inputs, [ids])[0].greedy
        assert not forced(vlm, part.inputs, [[*ids[:-1], ids[-1] - 1]])[0].greedy


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava"])
def test_skipped_layers_answer_and_score_as_skip_does(loaded, family):
    vlm = loaded(family, dtype="float64")
    items = questions(vlm)
    last = vlm.num_layers - 1
    skip = Skip(vlm.num_layers, 0, last)
    planned = Planned(vlm, LayerPlan(skip=skip), batch=4)
    expected = [text_of(vlm, generate(vlm, encoded(vlm, item), skip, max_new_tokens=6)[0]) for item in items]
    assert planned.answers(items) == expected
    # Leaving before the last layer is hiding there, which the sweep scores.
    for item, scored in zip(items, planned.scores(items, ["a dog"] * len(items)), strict=True):
        swept = sweep(vlm, encoded(vlm, item), [Plan.hide([last])], answers=["a dog"])
        assert scored.logprob == pytest.approx(float(swept.answer_logprobs[0, 0]), abs=1e-6)


@pytest.mark.parametrize("plan", [LayerPlan((0, 1)), LayerPlan(skip=Skip(4, 0, 1))])
def test_a_question_without_a_picture_is_answered_as_ever(loaded, plan):
    vlm = loaded("qwen2_5_vl", dtype="float64")
    items = [item_of(vlm, "q", "task", "What is two and two?", [], 6)]
    plan = plan if plan.skip is None else LayerPlan(skip=Skip(vlm.num_layers, 0, 1))
    plain = Planned(vlm, LayerPlan())
    assert Planned(vlm, plan).answers(items) == plain.answers(items)
    assert Planned(vlm, plan).scores(items, ["four"]) == plain.scores(items, ["four"])


def test_a_prompt_that_can_not_skip_is_an_error(loaded):
    vlm = loaded("qwen2_5_vl", dtype="float64")
    apart = item_of(vlm, "q", "task", "Is <image> like <image>?", [tiny.picture(seed=0), tiny.picture(seed=1)], 6)
    with pytest.raises(InputError, match="Skipping needs one image span"):
        Planned(vlm, LayerPlan(skip=Skip(vlm.num_layers, 0, 1))).answers([apart])


def test_nothing_is_left_on_the_model(vlm):
    items = questions(vlm, 2)
    before = answer(vlm, items)
    Planned(vlm, LayerPlan(tuple(range(vlm.num_layers)))).scores(items, ["3", "4"])
    assert answer(vlm, items) == before
