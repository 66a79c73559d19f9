"""Masking, late entry and injection: against full passes with the edits made by hand, and their no-op ends."""

import json
from itertools import product

import pytest
import torch

from vfl.engine.image_cache import prefill
from vfl.engine.layer_hooks import layer_hooks
from vfl.engine.plan import Plan
from vfl.engine.sweep import sweep
from vfl.errors import InputError
from vfl.metrics.accuracy import chance, eighths
from vfl.metrics.drop import drop
from vfl.metrics.injection import injection, unrelated_pair
from vfl.metrics.late_entry import late_entry
from vfl.metrics.mask import mask
from vfl.metrics.similarity import cut_off, similarity
from vfl.probes.asking import MAX_NEW_TOKENS, question_of

K = 2


def edited_logprob(vlm, encoded, answer, edit, ways="all"):
    """Log-probability of the answer's first token, by a full pass with the image cut off below K."""
    with torch.no_grad(), cut_off(vlm, encoded, K, edit, ways):
        logits = vlm.model(**encoded.inputs, position_ids=encoded.positions, use_cache=False).logits[0, -1]
    return float(logits.log_softmax(-1)[vlm.answer_ids(answer)[0]])


@pytest.mark.parametrize(
    ("metric", "options", "edit"),
    [
        (mask, {}, ("mask",)),
        (mask, {"ways": "cross"}, ("mask", "cross")),
        (mask, {"ways": "image_to_text"}, ("mask", "image_to_text")),
        (late_entry, {}, ("skip",)),
    ],
)
def test_accuracies_are_those_of_full_passes_with_the_tap(vlm, pairs, untouched, metric, options, edit):
    """One-token answers, so that one full pass gives the whole log-probability."""
    decoded = (vlm.tokenizer.decode([token]) for token in range(len(vlm.tokenizer)))
    words = [word for word in decoded if word.isalpha() and len(vlm.answer_ids(word)) == 1][:2]
    pair = pairs[0].model_copy(update={"answer": words[0], "source_answer": words[1]})
    logprob = metric(vlm, [pair], ks=[K], **options)["curves"]["naming/logprob"]["value"][1]
    expected = [
        edited_logprob(vlm, vlm.ask(question_of(vlm, pair), pair.path(which)), answer, *edit)
        for which, answer in zip(("image", "source_image"), words, strict=True)
    ]
    assert logprob == pytest.approx(sum(expected) / 2, abs=1e-8)


@pytest.mark.parametrize("metric", [mask, late_entry])
def test_nothing_masked_is_the_plain_model_and_everything_is_no_image(vlm, pairs, metric):
    result = metric(vlm, pairs[:1], ks=[0, vlm.num_layers])
    json.dumps(result, allow_nan=False)
    dropped = drop(vlm, pairs[:1], ks=[0, vlm.num_layers])
    for name in ("naming/accuracy", "naming/logprob"):
        assert result["curves"][name]["value"] == pytest.approx(dropped["curves"][name]["value"])
    assert result["scalars"]["naming/no_image"] == dropped["scalars"]["naming/no_image"]


def test_text_that_skips_layers_is_a_full_pass_whose_text_embeddings_enter_there(vlm, pairs, untouched):
    """Against a hand-written pass: the states of the text after the image are its embeddings again before layer K."""
    decoded = (vlm.tokenizer.decode([token]) for token in range(len(vlm.tokenizer)))
    words = [word for word in decoded if word.isalpha() and len(vlm.answer_ids(word)) == 1][:2]
    pair = pairs[0].model_copy(update={"answer": words[0], "source_answer": words[1]})
    result = late_entry(vlm, [pair], ks=[K, vlm.num_layers], text=True)
    json.dumps(result, allow_nan=False)
    expected: list[list[float]] = [[], [], []]
    for which, answer in zip(("image", "source_image"), words, strict=True):
        encoded = vlm.ask(question_of(vlm, pair), pair.path(which))
        end, kept = encoded.spans[-1].end, []

        def keep(layer_idx, state, arguments, kept=kept):
            kept[:] = kept or [state]

        def replaced(layer_idx, output, arguments, end=end, kept=kept):
            return torch.cat([output[:, :end], kept[0][:, end:]], dim=1)

        for row, k in enumerate((0, K, vlm.num_layers)):
            hooks = (layer_hooks(vlm.layers, keep, only=[0]), layer_hooks(vlm.layers, None, replaced, only=[k - 1]))
            with torch.no_grad(), hooks[0], hooks[1]:
                logits = vlm.model(**encoded.inputs, position_ids=encoded.positions, use_cache=False).logits[0, -1]
            expected[row].append(float(logits.log_softmax(-1)[vlm.answer_ids(answer)[0]]))
    curve = result["curves"]["naming/logprob_text"]
    assert curve["at"] == [0, K, vlm.num_layers]
    assert curve["value"] == pytest.approx([sum(row) / 2 for row in expected], abs=1e-8)
    assert curve["value"][0] == pytest.approx(result["curves"]["naming/logprob"]["value"][0])
    assert len(set(curve["value"])) == 3
    assert result["curves"]["naming/accuracy_text"]["n"] == 2
    assert "naming/tolerated_text" in result["scalars"]


def test_the_ways_of_masking_differ_and_the_strictest_is_the_default(vlm, pairs, untouched):
    results = [mask(vlm, pairs[:1], ks=[K], ways=ways) for ways in ("all", "cross", "image_to_text")]
    plain, masked = zip(*(result["curves"]["naming/logprob"]["value"] for result in results), strict=True)
    assert len(set(plain)) == 1
    assert len(set(masked)) == 3
    assert mask(vlm, pairs[:1], ks=[K])["options"]["ways"] == results[0]["options"]["ways"] == "all"


def test_injection_is_a_suffix_swap_onto_an_unrelated_image(vlm, pairs, untouched):
    ns = [0, K, vlm.num_layers]
    result = injection(vlm, pairs, ns=ns)
    for function in ("naming", "reading"):
        mine = [pair for pair in pairs if pair.function == function]
        right = []
        for pair, which in product(mine, ("image", "source_image")):
            other = unrelated_pair(pair, which, pairs)
            assert other.function != function
            clean = prefill(vlm, vlm.ask(question_of(vlm, pair), pair.path(which)))
            shown = vlm.ask(question_of(vlm, pair), other.path("image"))
            plans = [Plan.swap(range(n, vlm.num_layers), clean) for n in ns]
            texts = sweep(vlm, shown, plans, max_new_tokens=MAX_NEW_TOKENS[pair.match]).texts
            right.append([pair.correct(text, which) for text in texts])
        assert result["curves"][f"{function}/accuracy"]["value"] == [sum(n) / len(n) for n in zip(*right, strict=True)]
        assert result["scalars"][f"{function}/accuracy"]["value"] == 1


def test_injection_needs_an_unrelated_image(vlm, pairs):
    with pytest.raises(InputError, match="no unrelated image of its size among 1 pairs"):
        injection(vlm, pairs[:1])
    result = injection(vlm, pairs[:1], ns=[0], unrelated="noise")
    assert result["options"]["unrelated"] == "noise"
    with pytest.raises(InputError, match="unrelated='none' is unknown"):
        injection(vlm, pairs, unrelated="none")


def test_chance_and_the_default_points(pairs):
    assert eighths(32) == [0, 4, 8, 12, 16]
    assert eighths(2) == [0, 1]
    kinds = {
        "text": ({}, 0),
        "yesno": ({"answer": "yes", "source_answer": "no", "match": "yesno"}, 0.5),
        "choices": ({"choices": ["a", "b", "c", "d"]}, 0.25),
        "number": ({"answer": "3", "source_answer": "4", "match": "number"}, 0.5),
    }
    for update, level in kinds.values():
        assert chance([pairs[0].model_copy(update=update)]) == level


@pytest.mark.parametrize(
    ("metric", "options"), [(mask, {"ways": "none"}), (mask, {"ks": [-1]}), (injection, {"ns": [9]})]
)
def test_bad_options_are_refused(vlm, pairs, metric, options):
    with pytest.raises(InputError, match=rf"is unknown|the model has {vlm.num_layers} layers"):
        metric(vlm, pairs, **options)


def test_similarity_is_one_where_nothing_is_edited(vlm, prompts, untouched):
    result = similarity(vlm, prompts, below=K)
    json.dumps(result, allow_nan=False)
    for name, curve in result["curves"].items():
        assert curve["at"] == list(range(vlm.num_layers + 1)), name
        assert curve["value"][0] == pytest.approx(1, abs=1e-9), "embeddings are not edited"
        assert all(-1 <= value <= 1 + 1e-9 for value in curve["value"])
        assert curve["value"][-1] < 1 - 1e-4, f"{name} does nothing"
    # Below k the text sees the image in neither edit, so it is the same text.
    for at in range(K + 1):
        mask_text, skip_text = (result["curves"][f"{edit}/text"]["value"][at] for edit in ("mask", "skip"))
        assert mask_text == pytest.approx(skip_text, abs=1e-9)


def test_skipped_vision_tokens_stay_the_projectors_output(vlm, prompts):
    """Up to h[k] they are compared as h[0]."""
    from vfl.engine.layer_trace import trace_prompt
    from vfl.engine.states import is_vision
    from vfl.metrics.cosine import cosine_distance

    states = trace_prompt(vlm, prompts[0]).hidden
    vision = is_vision(prompts[0])
    curve = similarity(vlm, prompts[:1], below=K)["curves"]["skip/vision"]["value"]
    for at in range(K + 1):
        expected = 1 - cosine_distance(states[at][0, vision], states[0][0, vision]).mean()
        assert curve[at] == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize("below", [0, 99])
def test_similarity_needs_layers_on_both_sides(vlm, prompts, below):
    with pytest.raises(InputError, match=f"the model has {vlm.num_layers} layers"):
        similarity(vlm, prompts, below=below)


def test_a_prefix_lm_is_refused_where_its_vision_states_see_the_question(loaded, pairs):
    paligemma = loaded("paligemma")
    with pytest.raises(InputError, match="see the question"):
        mask(paligemma, pairs[:1])
