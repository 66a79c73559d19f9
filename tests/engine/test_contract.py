"""What the engine promises whatever the family: state restored, image caches reused, batches halved, errors said."""

import logging

import pytest
import tiny
import torch
from full_passes import FullPasses

from vfl.engine.image_cache import prefill
from vfl.engine.memory import guess_row_limit
from vfl.engine.plan import Plan
from vfl.engine.row_start import row_start
from vfl.engine.sweep import sweep
from vfl.errors import InputError


@pytest.fixture(scope="module")
def vlm(loaded):
    return loaded("qwen2_5_vl", dtype="float64")


@pytest.fixture(scope="module")
def prompts(vlm):
    return [vlm.ask("how many cats are there", tiny.picture(seed=seed)) for seed in (1, 2)]


def hooks(model):
    return [name for name, module in model.named_modules() if module._forward_hooks or module._forward_pre_hooks]


def plain_logits(vlm, encoded):
    with torch.no_grad():
        return vlm.model(**encoded.inputs, use_cache=False).logits


def test_nothing_is_left_on_the_model(vlm, prompts):
    target, source = prompts
    before = plain_logits(vlm, target)
    image_cache = prefill(vlm, source)
    sweep(vlm, target, [Plan.swap([1], image_cache), Plan.hide([2])], answers=["a cat"], max_new_tokens=3)
    assert hooks(vlm.model) == []
    assert torch.equal(plain_logits(vlm, target), before)


def test_nothing_is_left_on_the_model_after_an_exception(vlm, prompts):
    target, source = prompts
    before = plain_logits(vlm, target)
    image_cache = prefill(vlm, source)

    def fail(module, args, kwargs):
        raise RuntimeError("a layer failed")

    handle = vlm.layers[2].register_forward_pre_hook(fail, with_kwargs=True)
    try:
        for reading in ("text", "answer", "all"):
            with pytest.raises(RuntimeError, match="a layer failed"):
                sweep(vlm, target, [Plan.swap([1], image_cache)], reading=reading)
    finally:
        handle.remove()
    assert hooks(vlm.model) == []
    assert torch.equal(plain_logits(vlm, target), before)


def test_running_out_of_memory_halves_the_batch_and_says_so(vlm, prompts, caplog):
    target, source = prompts
    plans = [Plan.swap([layer], prefill(vlm, source)) for layer in range(vlm.num_layers)]
    expected = sweep(vlm, target, plans, answers=["two"], max_new_tokens=3)
    sizes = []

    def limited(module, args, kwargs):
        rows = (args[0] if args else kwargs["hidden_states"]).shape[0]
        sizes.append(rows)
        if rows > 2:
            raise torch.OutOfMemoryError("CUDA out of memory (made by a test)")

    handle = vlm.layers[-1].register_forward_pre_hook(limited, with_kwargs=True)
    try:
        with caplog.at_level(logging.WARNING):
            result = sweep(vlm, target, plans, answers=["two"], max_new_tokens=3)
    finally:
        handle.remove()
        limit, vlm.row_limit = vlm.row_limit, None
    assert limit == 2
    assert max(sizes) > 2
    assert "going on with 2" in caplog.text
    torch.testing.assert_close(result.logits, expected.logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(result.answer_logprobs, expected.answer_logprobs, rtol=0, atol=1e-12)
    assert result.token_ids == expected.token_ids


def test_other_runtime_errors_are_not_taken_for_memory(vlm, prompts):
    def fail(module, args, kwargs):
        raise RuntimeError("shapes do not match")

    handle = vlm.layers[-1].register_forward_pre_hook(fail, with_kwargs=True)
    try:
        with pytest.raises(RuntimeError, match="shapes do not match"):
            sweep(vlm, prompts[0], [Plan.own(), Plan.hide([0])])
    finally:
        handle.remove()


def test_questions_on_one_image_share_its_cache(vlm):
    image = tiny.picture(seed=1)
    questions = ["how many cats are there", "where is the cat"]
    own = prefill(vlm, vlm.ask(questions[0], image))
    runs = []
    handle = vlm.parts.body.register_forward_pre_hook(lambda *_: runs.append(1))
    try:
        shared = [sweep(vlm, vlm.ask(question, image), [Plan.own()], own=own).logits for question in questions]
    finally:
        handle.remove()
    assert runs == [], "with an image cache given, the image is not run again"
    for question, logits in zip(questions, shared, strict=True):
        torch.testing.assert_close(logits[0], plain_logits(vlm, vlm.ask(question, image))[0, -1], rtol=0, atol=1e-10)


def test_a_cache_of_another_image_is_refused_as_own(vlm, prompts):
    with pytest.raises(InputError, match="not this prompt's own"):
        sweep(vlm, prompts[0], [Plan.own()], own=prefill(vlm, prompts[1]))


def test_an_older_cache_is_right_after_another_prefill(vlm, prompts):
    """Qwen models keep rope deltas as state, which another image changes."""
    first = prefill(vlm, prompts[0])
    prefill(vlm, vlm.ask("what is this", tiny.picture(seed=3, size=(96, 48))))
    plain_logits(vlm, vlm.ask("what is this", tiny.picture(seed=3, size=(96, 48))))
    ours = sweep(vlm, prompts[0], [Plan.own()], own=first, max_new_tokens=4)
    assert ours.token_ids == sweep(vlm, prompts[0], [Plan.own()], max_new_tokens=4).token_ids
    torch.testing.assert_close(ours.logits[0], plain_logits(vlm, prompts[0])[0, -1], rtol=0, atol=1e-10)


def test_unequal_vision_tokens_are_refused(vlm, prompts):
    wide = prefill(vlm, vlm.ask("how many cats are there", tiny.picture(size=(128, 48))))
    with pytest.raises(InputError, match="same size in pixels"):
        sweep(vlm, prompts[0], [Plan.swap([1], wide)])


@pytest.mark.parametrize("layers", [[99], [-1]])
def test_layers_that_the_model_lacks_are_refused(vlm, prompts, layers):
    with pytest.raises(InputError, match=f"the model has {vlm.num_layers}"):
        sweep(vlm, prompts[0], [Plan.hide(layers)])


def test_unknown_readings_and_empty_plans_are_refused(vlm, prompts):
    with pytest.raises(InputError, match="expected one of text, answer, all"):
        sweep(vlm, prompts[0], [Plan.own()], reading="words")
    with pytest.raises(InputError, match=r"Plan\.own\(\)"):
        sweep(vlm, prompts[0], [])
    with pytest.raises(InputError, match="hides the image"):
        sweep(vlm, prompts[0], [Plan.hide([0])], reading="all")


def test_plans_compose_unless_they_disagree(vlm, prompts):
    target, source = prompts
    image_cache = prefill(vlm, source)
    both = Plan.hide([0]) | Plan.swap([2, 3], image_cache)
    full = FullPasses(vlm, target, source, "text")
    torch.testing.assert_close(sweep(vlm, target, [both]).logits[0], full.logits([2, 3], [0])[-1], rtol=0, atol=1e-9)
    with pytest.raises(InputError, match="layers 2"):
        both | Plan.hide([2])


def test_results_do_not_depend_on_the_order_of_plans(vlm, prompts):
    target, source = prompts
    image_cache = prefill(vlm, source)
    plans = [Plan.suffix(layer, image_cache) for layer in range(vlm.num_layers)] + [Plan.own()]
    forwards = sweep(vlm, target, plans, answers=["two"])
    backwards = sweep(vlm, target, plans[::-1], answers=["two"])
    torch.testing.assert_close(forwards.logits, backwards.logits.flip(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(forwards.answer_logprobs, backwards.answer_logprobs.flip(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "llava", "smolvlm", "gemma3", "internvl"])
@pytest.mark.parametrize("turns", [False, True])
def test_text_between_images_uses_exact_full_passes(loaded, family, turns):
    vlm = loaded(family, dtype="float64")
    with torch.no_grad():
        vlm.parts.head.weight[vlm.parts.image_token_id] = 0

    def encode(first, second):
        images = [{"type": "image", "image": tiny.picture(seed=seed)} for seed in (first, second)]
        text = [{"type": "text", "text": word} for word in ("and", "how many cats")]
        if not turns:
            return vlm.encode([{"role": "user", "content": [images[0], text[0], images[1], text[1]]}])
        reply = {"role": "assistant", "content": [{"type": "text", "text": "two"}]}
        users = [{"role": "user", "content": [images[i], text[i]]} for i in (0, 1)]
        return vlm.encode([users[0], reply, users[1]])

    target, source = encode(1, 2), encode(3, 4)
    assert len(target.spans) == 2
    full = FullPasses(vlm, target, source, "text")
    result = sweep(
        vlm,
        target,
        [Plan.own(), Plan.swap([1], prefill(vlm, source)), Plan.hide([0, 2])],
        answers=["three red cats"],
        max_new_tokens=3,
    )
    assert not result.shared_prefix
    for row, (swapped, hidden) in enumerate([([], []), ([1], []), ([], [0, 2])]):
        torch.testing.assert_close(result.logits[row], full.logits(swapped, hidden)[-1], rtol=0, atol=1e-9)
        ids = vlm.answer_ids("three red cats")
        expected = full.logprob(swapped, hidden, ids)
        torch.testing.assert_close(result.answer_logprobs[row, 0], expected, rtol=0, atol=1e-9)
        assert full.is_greedy(swapped, hidden, result.token_ids[row], 3)


@pytest.mark.parametrize("family", ["llava", "gemma3", "paligemma"])
@pytest.mark.parametrize("reading", ["text", "all"])
def test_eager_attention_gives_the_same(loaded, family, reading):
    """Eager attention takes additive masks where sdpa takes boolean ones."""
    results = []
    for attention in ("sdpa", "eager"):
        vlm = loaded(family, dtype="float64", attn_implementation=attention)
        target, source = (vlm.ask("how many cats", tiny.picture(seed=seed)) for seed in (1, 2))
        plans = [Plan.own(), Plan.swap([1], prefill(vlm, source)), *([Plan.hide([2])] if reading == "text" else [])]
        results.append(sweep(vlm, target, plans, answers=["three cats"], reading=reading))
    # Eager attention computes its softmax in float32 whatever the model's type.
    torch.testing.assert_close(results[0].logits, results[1].logits, rtol=0, atol=1e-3)
    torch.testing.assert_close(results[0].answer_logprobs, results[1].answer_logprobs, rtol=0, atol=1e-3)


def test_adjacent_images_are_one_span(vlm):
    images = [{"type": "image", "image": tiny.picture(seed=seed)} for seed in (1, 2)]
    encoded = vlm.encode([{"role": "user", "content": [*images, {"type": "text", "text": "how many cats"}]}])
    assert len(encoded.spans) == 1
    result = sweep(vlm, encoded, [Plan.own()])
    assert result.shared_prefix
    torch.testing.assert_close(result.logits[0], plain_logits(vlm, encoded)[0, -1], rtol=0, atol=1e-10)


def test_the_row_limit_is_a_count_of_rows(vlm, prompts):
    assert 1 <= guess_row_limit(vlm, row_start(vlm, prompts[0]).trace) <= 1024
