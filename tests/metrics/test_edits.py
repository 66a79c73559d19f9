"""Knockout, token ablation and head masking: against single passes with the edit made by hand, and their no-op ends."""

import json
import sys
from dataclasses import replace

import pytest
import torch

from vfl.engine.attention_tap import BlockedEdges, tapped
from vfl.engine.decoder_inputs import decoder_inputs, take_rows
from vfl.engine.image_cache import prefill
from vfl.engine.layer_hooks import layer_hooks
from vfl.engine.layer_trace import trace_prompt
from vfl.engine.memory import prompt_limit
from vfl.engine.plan import Plan
from vfl.engine.states import is_image_token
from vfl.engine.sweep import sweep
from vfl.engine.vision_embeddings import mean_embedding, vision_embeddings
from vfl.errors import InputError
from vfl.metrics.blanked_tokens import ablated, ablated_all
from vfl.metrics.edited_prompts import (
    Question,
    fitting,
    groups_of,
    question_on,
    replies,
    replies_of,
    reply,
)
from vfl.metrics.gradients import Attribution, integrated_gradients
from vfl.metrics.head_masking import MaskedRows, _drops, head_masking, heads_of_stage, mean_outputs, paper_ks
from vfl.metrics.knockout import knockout, window_layers
from vfl.metrics.mean_embedding import cached_mean
from vfl.metrics.objects import Places, at_positions, object_tokens
from vfl.metrics.result import mean_curve
from vfl.metrics.token_ablation import token_ablation
from vfl.probes.asking import first_tokens
from vfl.probes.functions import recognition

measured = sys.modules["vfl.metrics.token_ablation"]  # the name in `vfl.metrics` is the function
knockout_file = sys.modules["vfl.metrics.knockout"]
gradients_file = sys.modules["vfl.metrics.gradients"]
head_masking_file = sys.modules["vfl.metrics.head_masking"]


def first_probabilities(vlm, encoded, **tap):
    with torch.no_grad(), tapped(vlm, **tap):
        logits = vlm.model(**encoded.inputs, position_ids=encoded.positions, use_cache=False).logits[0, -1]
    return logits.softmax(-1)


@pytest.fixture
def question(vlm, boxed):
    return question_on(vlm, boxed[0], "image", boxed[0].path("image"))


def test_rows_answer_as_the_sweep(vlm, question, boxed, untouched):
    expected = sweep(vlm, question.encoded, [Plan.own()], max_new_tokens=question.limit)
    rows = replies(vlm, question, take_rows(decoder_inputs(vlm, question.encoded.inputs), [0] * 3))
    for row in (*rows, reply(vlm, question)):
        assert row.text == expected.texts[0]
        assert row.right
        torch.testing.assert_close(row.probabilities, expected.logits[0].softmax(-1), rtol=0, atol=1e-9)


def close(ours, theirs):
    assert [answer.text for answer in ours] == [answer.text for answer in theirs]
    assert [(answer.right, answer.token, answer.cut) for answer in ours] == [
        (answer.right, answer.token, answer.cut) for answer in theirs
    ]
    for first, second in zip(ours, theirs, strict=True):
        torch.testing.assert_close(first.probabilities, second.probabilities, rtol=0, atol=1e-9)


@pytest.fixture
def questions(vlm, pairs):
    """Of several images, lengths and bounds."""
    asked = [question_on(vlm, pair, which, pair.path(which)) for pair in pairs for which in ("image", "source_image")]
    return [*asked, replace(asked[0], limit=2), question_on(vlm, pairs[0], "image", pairs[1].path("image"), "It is a")]


def test_questions_together_are_answered_as_alone(vlm, questions, untouched):
    groups = groups_of(vlm, questions)
    assert sorted(row for group in groups for row in group) == list(range(len(questions)))
    assert max(map(len, groups)) > 1
    assert len(groups) >= 3, "another bound, another length"
    close(replies_of(vlm, questions), [reply(vlm, question) for question in questions])


def test_where_memory_runs_out_rows_are_halved(vlm, monkeypatch):
    monkeypatch.setattr(vlm, "row_limit", None)
    parts = []

    def run(part):
        parts.append(len(part))
        if len(part) > 3:
            raise torch.OutOfMemoryError
        return [row * row for row in part]

    assert fitting(vlm, range(7), 100, run) == [row * row for row in range(7)]
    assert parts == [7, 3, 3, 1]
    assert vlm.row_limit == 3
    assert prompt_limit(vlm, 10) == 3, "what did not fit is not tried again"
    assert prompt_limit(vlm, 10**6) == 1


def test_sets_of_several_questions_are_tried_as_those_of_one(vlm, questions, untouched):
    asked = []
    for at, question in enumerate(questions[:3]):
        count = int(is_image_token(vlm, question.encoded).sum())
        asked.append((question, [torch.arange(count) < 2 + at, torch.arange(count) % 3 == at]))
    blank = vision_embeddings(vlm, questions[0].encoded).mean(0)
    for (question, sets), answers in zip(asked, ablated_all(vlm, asked, blank), strict=True):
        close(answers, [ablated(vlm, question, [tokens], blank)[0] for tokens in sets])


def test_gradient_steps_together_are_those_one_by_one(vlm, question, monkeypatch):
    blank = vision_embeddings(vlm, question.encoded).mean(0)
    together = integrated_gradients(vlm, question.encoded, 7, blank, steps=5)
    for at_once in (1, 2):
        monkeypatch.setattr(gradients_file, "prompt_limit", lambda *args, at_once=at_once, **kwargs: at_once)
        alone = integrated_gradients(vlm, question.encoded, 7, blank, steps=5)
        torch.testing.assert_close(alone.scores, together.scores, rtol=1e-9, atol=1e-12)
        assert alone.residual == pytest.approx(together.residual, rel=1e-6)


def test_knockout_at_the_last_token_shares_what_comes_before(vlm, boxed, monkeypatch, untouched):
    """Whole prompts in every row give the same; and so do rows of several images in one batch."""
    shared = knockout(vlm, boxed, noise_filter=False)
    monkeypatch.setattr(knockout_file, "can_share", lambda *args: False)
    whole = knockout(vlm, boxed, noise_filter=False)
    assert list(shared["curves"]) == list(whole["curves"])
    for name, curve in shared["curves"].items():
        assert curve["value"] == pytest.approx(whole["curves"][name]["value"], abs=1e-9)


def test_knockout_is_a_pass_with_the_edges_cut(vlm, boxed, question, untouched):
    windows = {"one": (1, 1), "two": (1, 2), "all": (0, vlm.num_layers - 1)}
    width = vlm.num_layers - 1
    cuts = ["object to last_token", "rest to last_token", "all_but_last_row to last_row"]
    result = knockout(vlm, boxed[:1], windows=windows, sliding=width, cuts=cuts, noise_filter=False)
    windows |= {"from_0": (0, width - 1), "from_1": (1, width)}
    json.dumps(result, allow_nan=False)
    assert [window["name"] for window in result["windows"]] == list(windows)
    assert result["scalars"]["naming/right"]["value"] == result["scalars"]["naming/kept"]["value"] == 1
    encoded = question.encoded
    tokens = object_tokens(Places(vlm).of(encoded), boxed[0].boxes["image"])
    last = torch.zeros_like(encoded.input_ids, dtype=torch.bool)
    last[:, -1] = True
    plain = first_probabilities(vlm, encoded)
    curve = result["curves"]["naming/object to last_token/drop"]
    assert curve["n"] == 1, "the source image has no box"
    for value, (first, final) in zip(curve["value"], windows.values(), strict=True):
        block = BlockedEdges(frozenset(range(first, final + 1)), last, at_positions(vlm, encoded, tokens))
        edited = first_probabilities(vlm, encoded, blocks=[block])
        assert value == pytest.approx(float((plain - edited)[plain.argmax()]), abs=1e-9)
    assert any(abs(value) > 1e-6 for value in curve["value"]), "a knockout that cuts nothing proves nothing"
    assert result["curves"]["naming/all_but_last_row to last_row/drop"]["n"] == 2
    assert any(abs(v) > 1e-9 for v in result["curves"]["naming/all_but_last_row to last_row/drop"]["value"])


def test_knockout_without_boxes_leaves_the_object_out_by_name(vlm, pairs):
    result = knockout(vlm, pairs[:1], windows={"one": (0, 0)})
    assert result["without_object"] == [pairs[0].id]
    assert {name.split("/")[1] for name in result["curves"]} == {"all_but_last_row to last_row"}
    published = {"early": (0, 9), "early_mid": (5, 14), "mid": (11, 20), "mid_late": (15, 24), "late": (21, 31)}
    assert window_layers(32) == {**published, "all": (0, 31)}, "those of the published code"
    assert window_layers(4)["all"] == (0, 3)
    with pytest.raises(InputError, match="choose from object to last_token"):
        knockout(vlm, pairs, cuts=["object"])
    with pytest.raises(InputError, match="sliding=99"):
        knockout(vlm, pairs, sliding=99)
    with pytest.raises(InputError, match=f"within 0 to {vlm.num_layers - 1}"):
        knockout(vlm, pairs, windows={"far": (0, 99)})


def test_ablating_nothing_is_a_no_op_and_everything_the_mean_image(vlm, boxed, question, untouched):
    count = int(is_image_token(vlm, question.encoded).sum())
    blank = mean_embedding(vlm, [boxed[0].path("image"), boxed[0].path("source_image")])
    nothing, everything = torch.zeros(count, dtype=torch.bool), torch.ones(count, dtype=torch.bool)
    plain = reply(vlm, question)
    kept, gone = ablated(vlm, question, [nothing, everything], blank)
    torch.testing.assert_close(kept.probabilities, plain.probabilities, rtol=0, atol=1e-12)
    is_image = is_image_token(vlm, question.encoded)

    def blanked(layer, state, arguments):
        state = state.clone()
        state[:, is_image[: state.shape[1]]] = blank.to(state)
        return state, arguments

    with layer_hooks(vlm.layers, blanked, only=[0]):
        image_cache = prefill(vlm, question.encoded)
    expected = sweep(vlm, question.encoded, [Plan.swap(range(vlm.num_layers), image_cache)]).logits[0].softmax(-1)
    torch.testing.assert_close(gone.probabilities, expected, rtol=0, atol=1e-9)
    assert (gone.probabilities - plain.probabilities).abs().max() > 1e-6


def test_token_ablation_tries_all_sets_on_the_same_samples(vlm, boxed, untouched, caplog):
    """The source image has no box: it is left out of every set. An empty set flips nothing."""
    chosen = {"mine": [0, 3], "upper": [[0, 0, 1, 0.5]]}
    options = {"gradient_steps": 1, "noise_filter": False, "description_tokens": 2, "chosen": chosen}
    result = token_ablation(vlm, boxed[:1], **options)
    json.dumps(result, allow_nan=False)
    scalars = result["scalars"]
    assert scalars["vqa/right"]["value"] == scalars["vqa/kept"]["value"] == 1
    names = ("object", "object+1", "object+2", "register", "random_object", "random_43%", "gradients_7%", *chosen)
    assert {scalars[f"vqa/{name}"]["n"] for name in (*names, "right")} == {1}
    tokens = [scalars[f"vqa/{name}/tokens"]["value"] for name in ("object", "object+1", "object+2")]
    assert 0 < tokens[0] < tokens[1] <= tokens[2]
    assert scalars["vqa/random_object/tokens"]["value"] == tokens[0]
    assert scalars["vqa/mine/tokens"]["value"] == 2
    assert scalars["vqa/upper/tokens"]["value"] > 2
    if not scalars["vqa/register/tokens"]["value"]:
        assert scalars["vqa/register"]["value"] == 0
    assert scalars["gradients/residual"]["n"] == 1
    assert ("give more steps" in caplog.text) == (scalars["gradients/residual"]["value"] > 0.05)
    assert scalars["polling/right"]["n"] == 1
    assert result["without_object"] == []
    bare = token_ablation(vlm, [boxed[0].model_copy(update={"label": None})], evaluations=["vqa"])
    assert (bare["scalars"], bare["without_object"]) == ({}, [boxed[0].id])
    with pytest.raises(InputError, match="evaluations="):
        token_ablation(vlm, boxed, evaluations=["chat"])
    with pytest.raises(InputError, match="shares of the image's tokens"):
        token_ablation(vlm, boxed, random_shares=[40])
    with pytest.raises(InputError, match="'mine' holds 9999; expected numbers of image tokens"):
        token_ablation(vlm, boxed[:1], **options | {"chosen": {"mine": [9999]}})


def test_gradients_rank_once_an_image_by_yes_to_the_poll(vlm, boxed, monkeypatch):
    """Whatever is evaluated: the attribution of the polling question's prompt, at a token that "Yes" begins with."""
    asked = []

    def attribution(vlm, encoded, token, baseline, *, steps):
        asked.append((encoded.input_ids.tolist(), token))
        return Attribution(torch.arange(int(is_image_token(vlm, encoded).sum())).double(), 0.0)

    monkeypatch.setattr(measured, "integrated_gradients", attribution)
    token_ablation(vlm, boxed[:1], noise_filter=False, description_tokens=2)
    poll = vlm.ask(recognition.question("cat"), boxed[0].path("image"))
    ((ids, token),) = asked
    assert ids == poll.input_ids.tolist()
    assert token in first_tokens(vlm, ["Yes", "yes"])


def test_an_answer_goes_on_from_its_prefix(vlm, question, boxed):
    (ids,) = sweep(vlm, question.encoded, [Plan.own()], max_new_tokens=4).token_ids
    assert len(ids) == 4
    continued = question.encoded.continued(ids[:2])
    assert sweep(vlm, continued, [Plan.own()], max_new_tokens=2).token_ids == [ids[2:]]
    assert reply(vlm, Question(continued, bool, 2)).token == ids[2]
    prefixed = question_on(vlm, boxed[0], "image", boxed[0].path("image"), "It is a")
    assert prefixed.encoded.input_ids[0, question.encoded.length :].tolist() == vlm.answer_ids("It is a")
    assert token_ablation(vlm, boxed[:1], evaluations=["vqa"], prefix="It is a")["options"]["prefix"] == "It is a"


def test_integrated_gradients_are_those_of_finite_differences(vlm, question, untouched):
    encoded, token = question.encoded, 7
    image = vision_embeddings(vlm, encoded)
    blank = image.mean(0)
    scores = integrated_gradients(vlm, encoded, token, blank, steps=1).scores
    assert all(parameter.grad is None for parameter in vlm.model.parameters())
    at = int(scores.argmax())
    place = int(is_image_token(vlm, encoded).nonzero().flatten()[at])
    inputs, size, step = decoder_inputs(vlm, encoded.inputs), image.shape[1], 1e-2  # norms round to float32
    many = take_rows(inputs, [0] * (2 * size))
    many["inputs_embeds"][:, is_image_token(vlm, encoded)] = (image + blank) / 2  # the middle of the path
    many["inputs_embeds"][:, place] += step * torch.cat([torch.eye(size), -torch.eye(size)]).double()
    with torch.no_grad():
        logits = vlm.parts.head(vlm.parts.decoder(**many, use_cache=False).last_hidden_state[:, -1])[:, token]
    gradient = (logits[:size] - logits[size:]) / (2 * step)
    expected = (gradient * (image[at] - blank)).abs().sum()
    assert float(scores[at]) == pytest.approx(float(expected), rel=0.02)


def test_weights_ask_for_gradients_again_also_after_an_error(vlm):
    weights = list(vlm.model.parameters())
    weights[0].requires_grad_(False)
    asked = []

    def failing():
        with gradients_file.fixed_weights(vlm.model):
            asked.extend(weight.requires_grad for weight in weights)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert not any(asked)
    assert len(asked) == len(weights)
    assert [weight.requires_grad for weight in weights] == [False, *[True] * (len(weights) - 1)]
    weights[0].requires_grad_(True)


def test_more_steps_of_integrated_gradients_come_nearer_to_completeness(vlm, question):
    blank = vision_embeddings(vlm, question.encoded).mean(0)
    everything = torch.ones(int(is_image_token(vlm, question.encoded).sum()), dtype=torch.bool)
    (gone,) = ablated(vlm, question, [everything], blank)
    change = (reply(vlm, question).probabilities.log() - gone.probabilities.log()).abs()
    token = int(change.argmax())  # a logit that hardly changes leaves a residual of rounding alone
    few, many = (integrated_gradients(vlm, question.encoded, token, blank, steps=steps).residual for steps in (1, 16))
    assert many < few / 2


def test_the_mean_embedding_is_kept_for_the_same_files(vlm, boxed, tmp_path):
    folder, cache = boxed[0].folder / "images", tmp_path / "mean.safetensors"
    first = cached_mean(vlm, folder, cache)
    assert cache.is_file()
    assert torch.equal(cached_mean(vlm, folder, cache), first)
    (tmp_path / "one").mkdir()
    boxed[0].open("image").save(tmp_path / "one" / "a.png")
    other = cached_mean(vlm, tmp_path / "one", cache)
    expected = vision_embeddings(vlm, vlm.ask("?", boxed[0].path("image"))).mean(0)
    torch.testing.assert_close(other, expected)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        cached_mean(vlm, tmp_path / "none")


def outputs_of(vlm, encoded, layer, rewrite):
    """(T, H, D) what the output projection of a layer gets."""
    seen = []
    handle = vlm.layers[layer].self_attn.o_proj.register_forward_hook(lambda m, args, out: seen.append(args[0][0]))
    try:
        with torch.no_grad(), tapped(vlm, rewrite=rewrite):
            vlm.model(**encoded.inputs, position_ids=encoded.positions, use_cache=False)
    finally:
        handle.remove()
    return seen[0].unflatten(-1, (vlm.parts.decoder.config.num_attention_heads, -1))


def values_of(vlm, encoded, layer, head):
    trace = trace_prompt(vlm, encoded)
    groups = vlm.parts.decoder.config.num_attention_heads // trace.values[layer].shape[1]
    return trace.values[layer][0, head // groups]  # (T, D)


@pytest.mark.parametrize("mode", ["zero", "mean", "uniform", "paper"])
def test_a_masked_head_gives_what_its_mode_says_and_others_stay(vlm, prompts, pairs, mode, untouched):
    encoded, layer, head = prompts[0], 1, 2
    plain = outputs_of(vlm, encoded, layer, MaskedRows([[]], mode))
    means = mean_outputs(vlm, pairs[:1])
    masked = outputs_of(vlm, encoded, layer, MaskedRows([[(layer, head)]], mode, means))
    others = [at for at in range(plain.shape[1]) if at != head]
    assert torch.equal(masked[:, others], plain[:, others])
    values = values_of(vlm, encoded, layer, head)
    counts = torch.arange(1, len(values) + 1)[:, None]
    expected = {
        "zero": torch.zeros_like(values),
        "mean": means[layer][head].expand_as(values),
        "uniform": values.cumsum(0) / counts,
        "paper": values.mean(0).expand_as(values),
    }[mode]
    torch.testing.assert_close(masked[:, head], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("mode", ["zero", "mean", "uniform", "paper"])
def test_each_row_has_heads_of_its_own(vlm, questions, pairs, mode, untouched):
    """Sets of several prompts in one batch answer as each alone, over whole prompts."""
    last = vlm.num_layers - 1
    sets = [[(1, 2), (1, 0), (2, 1)], [], [(1, 1)], [(0, 0)], [(0, 0), (last, 1)], [(last, 2)]]
    means = mean_outputs(vlm, pairs[:1])
    group = max(head_masking_file._groups(vlm, questions), key=len)[:2]
    rows = [(at, number) for at in group for number in range(len(sets))]
    together = head_masking_file._run(vlm, questions, sets, mode, means, rows)
    for (at, number), answer in zip(rows, together, strict=True):
        question, alone = questions[at], MaskedRows([sets[number]], mode, means)
        with tapped(vlm, rewrite=alone):
            close([answer], replies(vlm, question, decoder_inputs(vlm, question.encoded.inputs)))
        expected = first_probabilities(vlm, question.encoded, rewrite=MaskedRows([sets[number]], mode, means))
        torch.testing.assert_close(answer.probabilities, expected, rtol=0, atol=1e-9)


def test_no_heads_masked_is_the_plain_model(vlm, prompts, untouched):
    plain = first_probabilities(vlm, prompts[0])
    assert torch.equal(first_probabilities(vlm, prompts[0], rewrite=MaskedRows([[]], "zero")), plain)


def test_head_masking_by_stage(vlm, pairs, untouched, monkeypatch):
    asked = []

    def noting(heads, mode, means):
        asked.append(list(heads))
        return MaskedRows(heads, mode, means)

    monkeypatch.setattr(head_masking_file, "MaskedRows", noting)
    result = head_masking(vlm, pairs[:1], ks=[1, 2], draws=1, stages=["early", "late"], others=True)
    first = asked[0][:13]  # of the first image: no head, then a set a stage and k for each of the three lines
    top, others = first[1:5], first[-4:]
    assert first[0] == []
    assert [len(heads) for heads in others] == [1, 2, 1, 2]
    assert not any(set(ours) & set(theirs) for ours, theirs in zip(top, others, strict=True)), "none of the top k"
    json.dumps(result, allow_nan=False)
    assert result["scalars"]["naming/accuracy"]["value"] == 1
    assert list(result["curves"]) == [
        f"naming/{stage}/{which}"
        for stage in ("early", "late")
        for which in ("top", "top/drop", "random", "random/drop", "others", "others/drop")
    ]
    for name in ("naming/early/top", "naming/late/random"):
        accuracy, drop = (result["curves"][curve] for curve in (name, f"{name}/drop"))
        assert drop["value"] == pytest.approx([accuracy["value"][0] - value for value in accuracy["value"]])
    assert result["curves"]["naming/early/top"]["at"] == [0, 1, 2]
    assert result["curves"]["naming/early/top"]["value"][0] == 1
    assert max(layer for layer, _ in result["masked"]["top"]["early"]) < min(
        layer for layer, _ in result["masked"]["top"]["late"]
    )
    scores = torch.arange(12.0).view(6, 2)
    assert heads_of_stage(scores, "mid") == [(3, 1), (3, 0), (2, 1), (2, 0)]
    assert paper_ks(341) == [10, 20, 30, 50]
    assert paper_ks(4) == [1, 2, 3, 4]
    scores_of_all = torch.zeros(vlm.num_layers, vlm.parts.decoder.config.num_attention_heads)
    with pytest.raises(InputError, match="Give smaller ks"):
        head_masking(vlm, pairs[:1], ks=[len(heads_of_stage(scores_of_all, "early"))], stages=["early"], others=True)
    with pytest.raises(InputError, match="mode='gone' is unknown"):
        head_masking(vlm, pairs, mode="gone")
    with pytest.raises(InputError, match="those of the smallest stage"):
        head_masking(vlm, pairs[:1], ks=[99])


def test_drops_are_paired():
    """Half of the answers are right in both, yet the change is far more certain than either accuracy."""
    drop = mean_curve(_drops([[1, 1], [0, 0]] * 20 + [[1, 0]]))
    assert drop["value"] == pytest.approx([0, 1 / 41])
    assert (drop["low"][0], drop["high"][0]) == (0, 0), "the plain model loses nothing against itself"
    assert drop["high"][1] < 0.1
