"""Swapped layers: the answers and probabilities of the sweep, and their marks."""

import pytest
import tiny
import torch

from vfl.engine.image_cache import prefill
from vfl.engine.plan import Plan
from vfl.engine.sweep import sweep
from vfl.errors import InputError
from vfl.probes.make import draw_one
from vfl.probes.style import MICRO_STYLE
from vfl.serve.swapping import swap_layers


def test_counting_goes_over_at_its_planted_layer(loaded):
    pair = draw_one("counting", 0, 0, MICRO_STYLE)
    rows = swap_layers(loaded(None), pair.image, pair.source_image, pair.question, probabilities=True)
    assert [row.layers for row in rows] == ["none", *map(str, range(10)), "all"]
    assert [row.layers for row in rows if row.mark == "= source"] == ["5"]
    assert (rows[0].mark, rows[-1].mark) == ("target", "source")
    for row in rows:
        own, other = row.probability
        assert (own > 0.5, other > 0.5) == (row.answer == rows[0].answer, row.answer == rows[-1].answer)


def test_answers_and_probabilities_are_those_of_the_sweep(loaded):
    vlm = loaded("qwen2_5_vl", dtype="float64")
    target, source = tiny.picture(seed=0), tiny.picture(seed=1)
    rows = swap_layers(vlm, target, source, "How many?", window=2, max_new_tokens=4, probabilities=True)
    cache = prefill(vlm, vlm.ask("How many?", source))
    plans = [Plan.window(first, 2, cache) for first in range(vlm.num_layers - 1)]
    asked = [rows[0].answer, rows[-1].answer]
    swept = sweep(vlm, vlm.ask("How many?", target), plans, answers=asked, max_new_tokens=4)
    assert [row.answer for row in rows[1:-1]] == swept.texts
    found = torch.tensor([row.probability for row in rows[1:-1]])
    torch.testing.assert_close(found, swept.answer_logprobs.exp().to(found), atol=1e-6, rtol=0)
    assert rows[1].layers == "0-1"


def test_a_window_that_is_too_wide_is_an_error(loaded):
    with pytest.raises(InputError, match="wider than the model"):
        swap_layers(loaded(None), tiny.picture(seed=0), tiny.picture(seed=1), "?", window=11)
