"""The sweep equals one full forward a row, on every family and for every reading."""

import pytest
import tiny
import torch
from full_passes import FullPasses

from vfl.engine.image_cache import prefill
from vfl.engine.joint_prefill import prefill_all
from vfl.engine.plan import Plan
from vfl.engine.row_start import row_start
from vfl.engine.sweep import run_plans, sorted_plans, sweep

ANSWERS = ("three red cats", "a")


def pair(vlm, size=(48, 64)):
    """Two prompts with the same question on different pictures of one size (or sounds)."""
    if vlm.medium.name == "audio":
        return [vlm.ask("how many cats are there", tiny.sound(seed)) for seed in (1, 2)]
    return [vlm.ask("how many cats are there", tiny.picture(seed=seed, size=size)) for seed in (1, 2)]


@pytest.fixture(scope="module", params=sorted(tiny.FAMILIES | tiny.AUDIO))
def vlm(request, loaded):
    vlm = loaded(request.param, dtype="float64")
    with torch.no_grad():  # random models may answer with the image placeholder, which a full forward can't be fed
        vlm.parts.head.weight[vlm.parts.image_token_id] = 0
    return vlm


def close(ours, theirs):
    return torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9 * max(1.0, float(theirs.abs().max())))


@pytest.mark.parametrize("reading", ["text", "answer", "all"])
def test_sweep_equals_full_passes(vlm, reading):
    target, source = pair(vlm)
    full = FullPasses(vlm, target, source, reading)
    image_cache = prefill(vlm, source)
    last = vlm.num_layers - 1
    swaps = [[], *[[layer] for layer in range(last + 1)], [1, 2], list(range(2, last + 1)), [0, last]]
    hides = [] if reading == "all" else [[1], [0, 1], list(range(last + 1))]
    plans = [Plan.swap(layers, image_cache) for layers in swaps] + [Plan.hide(layers) for layers in hides]
    rows = [(layers, []) for layers in swaps] + [([], layers) for layers in hides]
    result = sweep(vlm, target, plans, answers=ANSWERS, max_new_tokens=4, reading=reading)
    for row, (swapped, hidden) in enumerate(rows):
        close(result.logits[row], full.logits(swapped, hidden)[-1])
        for column, answer in enumerate(ANSWERS):
            close(result.answer_logprobs[row, column], full.logprob(swapped, hidden, vlm.answer_ids(answer)))
        assert full.is_greedy(swapped, hidden, result.token_ids[row], 4)
    assert (result.logits[1:] - result.logits[0]).abs().max() > 1e-4, "the plans must do something"


def test_an_answer_that_is_scored_is_a_draft_of_what_is_said(vlm):
    """Whichever row's answer is given, also one that a row leaves, or that is longer than may be said."""
    target, source = pair(vlm)
    image_cache, start = prefill(vlm, source), row_start(vlm, target)
    plans = [Plan.own(), Plan.hide(range(vlm.num_layers)), Plan.swap([0], image_cache)]
    plans = [plans[row] for row in sorted_plans(plans, vlm.num_layers)]
    said = sweep(vlm, target, plans, max_new_tokens=5, start=start).token_ids
    following, steps = start.answer_tokens(vlm, 6), []
    drafts = [[*row, 7, 7][:6] for row in said] + [[*said[0][:2], 7, 7]]

    def run(asked):
        steps.clear()
        hook = vlm.layers[0].register_forward_pre_hook(lambda module, args: steps.append(args[0].shape[1]))
        rows = run_plans(vlm, plans, start.trace, start.context, following, asked, 5)
        hook.remove()
        return [row.ids for row in rows]

    for draft in drafts:
        assert run([(torch.tensor([draft]), list(range(len(plans))))]) == said
    with_all = [(torch.tensor([row[:4]]), [place]) for place, row in enumerate(said) if len(row) > 3]
    if len(with_all) == len(plans):
        assert run(with_all) == said
        assert steps.count(1) <= 2 * len(plans), "each goes on from its draft's last token"


def test_swapping_with_itself_is_the_identity(vlm):
    target, _ = pair(vlm)
    own = prefill(vlm, target)
    plans = [Plan.own(), *(Plan.swap([layer], own) for layer in range(vlm.num_layers)), Plan.suffix(0, own)]
    logits = sweep(vlm, target, plans).logits
    close(logits, logits[:1].expand_as(logits))


def test_swapping_every_layer_is_asking_the_source(vlm):
    if not vlm.shares_prefix:
        pytest.skip("vision states depend on the question's states, which a swap does not replace")
    target, source = pair(vlm)
    image_cache = prefill(vlm, source)
    swapped = sweep(vlm, target, [Plan.suffix(0, image_cache)], answers=ANSWERS)
    asked = sweep(vlm, source, [Plan.own()], answers=ANSWERS)
    close(swapped.logits, asked.logits)
    close(swapped.answer_logprobs, asked.answer_logprobs)


def test_the_baseline_is_the_plain_model(vlm):
    target, _ = pair(vlm)
    with torch.no_grad():
        plain = vlm.model(**target.inputs, use_cache=False).logits[0, -1]
    close(sweep(vlm, target, [Plan.own()]).logits[0], plain)


def test_greedy_answers_equal_generate(vlm):
    target, _ = pair(vlm)
    ids = vlm.model.generate(**target.inputs, max_new_tokens=5, do_sample=False)[0, target.length :].tolist()
    ours = sweep(vlm, target, [Plan.own()], max_new_tokens=5).token_ids[0]
    assert ours == [token for token in ids if token not in vlm.end_ids()][: len(ours)]
    assert len(ours) == 5 or ids[len(ours)] in vlm.end_ids()


def test_images_prefilled_together_are_those_prefilled_alone(vlm):
    prompts = pair(vlm)
    assert vlm.joins_images
    for ours, prompt in zip(prefill_all(vlm, prompts), prompts, strict=True):
        alone = prefill(vlm, prompt)
        assert (ours.length, ours.spans, ours.image_key) == (alone.length, alone.spans, alone.image_key)
        for theirs, own in zip((*ours.keys, *ours.values), (*alone.keys, *alone.values), strict=True):
            close(theirs, own)


def test_a_start_serves_several_sweeps_and_answers_of_another_prompt_find_their_positions(vlm):
    target, source = pair(vlm)
    plans = [Plan.own(), Plan.swap([1], prefill(vlm, source))]
    vlm.layouts.clear()
    fresh = sweep(vlm, source, [Plan.own()], answers=ANSWERS, max_new_tokens=3)
    vlm.layouts.clear()
    start = row_start(vlm, target)
    first, again = (sweep(vlm, target, plans, answers=ANSWERS, max_new_tokens=3, start=start) for _ in range(2))
    assert torch.equal(first.answer_logprobs, again.answer_logprobs)
    assert first.token_ids == again.token_ids
    # The other prompt has the same shape: it takes the positions and masks that the first left.
    assert len(vlm.layouts) == 1
    other = sweep(vlm, source, [Plan.own()], answers=ANSWERS, max_new_tokens=3)
    assert len(vlm.layouts) == 1
    close(other.answer_logprobs, fresh.answer_logprobs)
    assert other.token_ids == fresh.token_ids
