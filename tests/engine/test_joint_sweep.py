"""A joint sweep gives what sweeps of each prompt alone give, whatever the prompts share and ask."""

import pytest
import tiny
import torch

from vfl.engine import joint_sweep
from vfl.engine.image_cache import prefill
from vfl.engine.joint_sweep import Swept, sweep_all
from vfl.engine.plan import Plan
from vfl.engine.sweep import sweep
from vfl.errors import InputError


@pytest.fixture(scope="module", params=["llava", "qwen2_5_vl", "qwen3_vl", "gemma3", "smolvlm", "paligemma"])
def vlm(request, loaded):
    vlm = loaded(request.param, dtype="float64")
    with torch.no_grad():  # an answer with the placeholder can't be fed
        vlm.parts.head.weight[vlm.parts.image_token_id] = 0
    return vlm


@pytest.fixture(scope="module")
def prompts(vlm):
    """Three of one length on three images, then one that is longer: the plans and the answers' lengths differ."""
    questions = (*["how many cats"] * 3, "is there a red cube or a blue ball in the image")
    encoded = [vlm.ask(question, tiny.picture(seed=at % 3)) for at, question in enumerate(questions)]
    caches = [prefill(vlm, one) for one in encoded]
    layers = range(vlm.num_layers)
    plans = [
        [Plan.own(), Plan.hide(layers), Plan.hide(range(1, 3))],
        [Plan.swap([1], caches[0]), Plan.own()],
        [Plan.hide([2]) | Plan.swap([0, 3], caches[1])],
        [Plan.own(), Plan.hide([0])],
    ]
    answers = ("two", "red and blue", "a cat", "two")
    return [
        Swept(prompt, chosen, [answer, "none"][: 1 + at % 2], 5, cache, scored=[{0, 1}, {1}] if at == 1 else None)
        for at, (prompt, chosen, answer, cache) in enumerate(zip(encoded, plans, answers, caches, strict=True))
    ]


def same(vlm, prompts):
    for asked, ours in zip(prompts, sweep_all(vlm, prompts), strict=True):
        alone = sweep(
            vlm,
            asked.encoded,
            asked.plans,
            answers=asked.answers,
            scored=asked.scored,
            max_new_tokens=asked.max_new_tokens,
            own=asked.own,
        )
        torch.testing.assert_close(ours.logits, alone.logits, rtol=0, atol=1e-9)
        torch.testing.assert_close(ours.answer_logprobs, alone.answer_logprobs, rtol=0, atol=1e-9, equal_nan=True)
        assert (ours.token_ids, ours.texts, ours.names) == (alone.token_ids, alone.texts, alone.names)


def test_prompts_together_give_what_each_gives_alone(vlm, prompts, monkeypatch):
    together = []
    joint = joint_sweep._together

    def noting(vlm, asked, first):
        together.append(len(asked))
        return joint(vlm, asked, first)

    monkeypatch.setattr(joint_sweep, "_together", noting)
    same(vlm, prompts)
    assert together == ([3] if vlm.shares_prefix else []), "those of one length"


def test_where_memory_runs_out_rows_are_halved(vlm, prompts, monkeypatch):
    if not vlm.shares_prefix:
        pytest.skip("its prompts are swept alone")
    run_plans, sizes = joint_sweep.run_plans, []

    def short_of_memory(vlm, plans, *rest):
        sizes.append(len(plans))
        if len(plans) > 2:
            raise torch.OutOfMemoryError
        return run_plans(vlm, plans, *rest)

    monkeypatch.setattr(vlm, "row_limit", None)
    monkeypatch.setattr(joint_sweep, "run_plans", short_of_memory)
    same(vlm, prompts)
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1]
    assert vlm.row_limit == 1


def test_plans_are_checked_on_their_own_prompt(loaded):
    vlm = loaded("qwen2_5_vl", dtype="float64")
    encoded = vlm.ask("how many cats", tiny.picture())
    foreign = prefill(vlm, vlm.ask("how many cats", tiny.picture(size=(2 * tiny.SIZE[0], tiny.SIZE[1]))))
    asked = [
        Swept(encoded, [plan], ["two"], 0, prefill(vlm, encoded)) for plan in (Plan.own(), Plan.swap([1], foreign))
    ]
    for some in (asked, asked[1:]):
        with pytest.raises(InputError, match="swapping needs the same number at the same positions"):
            sweep_all(vlm, some)
