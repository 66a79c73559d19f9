"""One greedy loop, one stop rule, one halving, one way of leaving a model as it was."""

import random

import numpy as np
import pytest
import tiny
import torch

from vfl.engine.decode import generate, greedy, greedy_answers, until_end
from vfl.engine.decoder_inputs import decoder_inputs, take_rows
from vfl.engine.memory import in_parts
from vfl.engine.plan import Plan
from vfl.engine.sweep import sweep
from vfl.engine.untouched import as_it_was, untouched

END = 9


def scripted(*rows):
    """Logits and steps of rows that say these tokens."""
    script = torch.tensor(rows)

    def logits(number):
        return torch.nn.functional.one_hot(script[:, number], 10).double()

    return logits(0), lambda tokens, number: logits(number + 1)


def test_each_row_stops_at_its_own_end_and_all_at_the_limit():
    logits, step = scripted([1, 2, 3, 4], [5, END, 6, 7], [END, 1, 1, 1])
    assert greedy_answers(logits, step, 3, {END}) == [[1, 2, 3], [5], []]
    assert until_end([5, END, 6], {END}) == [5]
    assert until_end([5, 6], {END}) == [5, 6]


def test_nothing_is_stepped_that_no_row_needs():
    steps = []
    logits, step = scripted([1, END, 2, 2], [END, 3, 3, 3])

    def counted(tokens, number):
        steps.append((tokens.tolist(), number))
        return step(tokens, number)

    assert greedy_answers(logits, counted, 4, {END}) == [[1], []]
    assert steps == [([1, END], 0)]


def test_rows_that_have_ended_are_left_out_once_they_are_half():
    script = torch.tensor([[1, END, 7, 7, 7], [2, 3, END, 7, 7], [4, 5, 6, 8, END], [END, 7, 7, 7, 7]])
    rows, stepped = list(range(4)), []

    def logits(number):
        return torch.nn.functional.one_hot(script[rows, number], 10).double()

    def step(tokens, number):
        stepped.append(tokens.tolist())
        return logits(number + 1)

    def narrow(places):
        rows[:] = [rows[place] for place in places]

    assert greedy_answers(logits(0), step, 5, {END}, narrow) == [[1], [2, 3], [4, 5, 6, 8], []]
    assert stepped == [[1, 2, 4, END], [3, 5], [6], [8]]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3", "paligemma"])
def test_generate_and_the_loop_give_the_same(loaded, family):
    vlm = loaded(family, dtype="float64")
    with torch.no_grad():  # an answer with the placeholder can't be fed
        vlm.parts.head.weight[vlm.parts.image_token_id] = 0
    encoded = vlm.ask("how many cats", tiny.picture())
    assert generate(vlm, encoded.inputs, 5) == sweep(vlm, encoded, [Plan.own()], max_new_tokens=5).token_ids
    assert len(generate(vlm, encoded.inputs, 5, exactly=True)[0]) == 5


def test_the_generation_config_is_back_after_an_exception(loaded):
    vlm = loaded("llava")
    before = vlm.model.generation_config
    with pytest.raises(RuntimeError, match="stop"), greedy(vlm):
        raise RuntimeError("stop")
    assert vlm.model.generation_config is before


def test_rows_can_be_repeated_and_reordered(loaded):
    """DeepStack's features have no batch axis of their own."""
    vlm = loaded("qwen3_vl", dtype="float64")
    arguments = decoder_inputs(vlm, vlm.ask("how many cats", tiny.picture()).inputs)
    with torch.no_grad():
        (alone,) = vlm.parts.decoder(**arguments).last_hidden_state
        other = take_rows(arguments, [0, 0])
        other["inputs_embeds"][1] += 0.1
        three = vlm.parts.decoder(**take_rows(other, [1, 0, 0])).last_hidden_state
    torch.testing.assert_close(three[1], alone, rtol=0, atol=1e-12)
    torch.testing.assert_close(three[2], alone, rtol=0, atol=1e-12)
    assert (three[0] - alone).abs().max() > 1e-4


def test_parts_are_halved_until_they_fit(caplog):
    sizes = []

    def run(part):
        sizes.append(len(part))
        if len(part) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return [10 * item for item in part]

    results, limit = in_parts(range(9), 8, run, "rows")
    assert results == [10 * item for item in range(9)]
    assert sizes == [8, 4, 2, 2, 2, 2, 1]
    assert limit == 2
    assert "out of memory with 8 rows in a batch; going on with 4" in caplog.text
    with pytest.raises(RuntimeError, match="can't allocate"):
        in_parts([1], 4, lambda part: run([0] * 3), "rows")
    with pytest.raises(RuntimeError, match="shapes"):
        in_parts([1, 2], 2, lambda part: (_ for _ in ()).throw(RuntimeError("shapes")), "rows")


@pytest.mark.parametrize("asked", [False, True])
def test_a_model_is_as_it_was(loaded, asked):
    """Modes, random states and the rope deltas that the next step of another prompt would read."""
    vlm = loaded("qwen2_5_vl")
    generate(vlm, vlm.ask("how many", tiny.picture(size=(96, 128))).inputs, 2)
    vlm.model.train()
    deltas = vlm.parts.body.rope_deltas.clone()
    vlm.layers[1].eval()
    modes = [module.training for module in vlm.model.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    context = untouched(vlm) if asked else as_it_was(vlm.model)

    def disturb():
        vlm.model.eval()
        generate(vlm, vlm.ask("where", tiny.picture(size=(48, 64))).inputs, 2)
        assert not torch.equal(vlm.parts.body.rope_deltas, deltas), "else it proves nothing"
        torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), context:
        disturb()
    assert torch.equal(vlm.parts.body.rope_deltas, deltas)
    assert [module.training for module in vlm.model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert random.getstate() == states[2]
