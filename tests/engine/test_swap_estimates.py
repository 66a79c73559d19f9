"""Estimates of single-layer swaps: the drop that the sweep measures, to first order in how much is swapped."""

import pytest
import tiny
import torch

from vfl.engine.image_cache import ImageCache, prefill
from vfl.engine.plan import Plan
from vfl.engine.swap_estimates import swap_estimates
from vfl.engine.sweep import sweep
from vfl.errors import InputError

SMALL = 1e-4
ANSWERS = ("a dog and a cat", "cats")


@pytest.fixture(scope="module", params=sorted({*tiny.FAMILIES, *tiny.AUDIO} - {"paligemma"}))
def vlm(request, loaded):
    return loaded(request.param, dtype="float64")


def ask(vlm, seed):
    shown = tiny.sound(seed) if vlm.medium.name == "audio" else tiny.picture(seed=seed)
    return vlm.ask("how many cats are there", shown)


def mixed(own, other, share):
    """An image cache this part of the way from one to another."""
    keys, values = (
        tuple(a + share * (b - a) for a, b in zip(getattr(own, name), getattr(other, name), strict=True))
        for name in ("keys", "values")
    )
    return ImageCache(keys, values, own.ids, own.positions, own.spans, other.image_key)


def exact_drops(vlm, encoded, own, other, answers):
    plans = [Plan.own(), *(Plan.swap([layer], other) for layer in range(vlm.num_layers))]
    logprobs = sweep(vlm, encoded, plans, answers=answers, own=own).answer_logprobs
    log_odds = logprobs[:, 0] - logprobs[:, 1]
    return log_odds[0], log_odds[0] - log_odds[1:]


@pytest.mark.parametrize("answers", [ANSWERS, ("cats", "dogs")], ids=["several tokens", "one"])
def test_estimates_are_exact_for_small_swaps(vlm, answers):
    encoded = ask(vlm, 1)
    if len(encoded.spans) != 1:
        with pytest.raises(InputError, match=f"{len(encoded.spans)} image spans where one is needed"):
            swap_estimates(vlm, encoded, prefill(vlm, encoded), prefill(vlm, ask(vlm, 2)), answers)
        return
    own = prefill(vlm, encoded)
    other = mixed(own, prefill(vlm, ask(vlm, 2)), SMALL)
    log_odds, drops = exact_drops(vlm, encoded, own, other, answers)
    estimates = swap_estimates(vlm, encoded, own, other, answers)
    assert estimates.log_odds == pytest.approx(float(log_odds), abs=1e-9)
    assert float(drops.abs().max()) > 0
    torch.testing.assert_close(estimates.drops, drops.double(), rtol=0.02, atol=0.02 * float(drops.abs().max()))


def test_a_layer_itself_is_not_taken_as_linear(loaded):
    """Half the way to the other image is not half of the drop: attention and MLP of the layer are computed."""
    vlm = loaded("qwen2_5_vl", dtype="float64")
    encoded = ask(vlm, 1)
    own, other = prefill(vlm, encoded), prefill(vlm, ask(vlm, 2))
    half, whole = (swap_estimates(vlm, encoded, own, mixed(own, other, share), ANSWERS).drops for share in (0.5, 1.0))
    assert not torch.allclose(half * 2, whole, rtol=1e-3)


def test_a_swap_with_itself_drops_nothing_and_the_model_is_left_alone(loaded):
    vlm = loaded("qwen2_5_vl", dtype="float64")
    encoded = ask(vlm, 1)
    own = prefill(vlm, encoded)
    assert swap_estimates(vlm, encoded, own, own, ANSWERS).drops.tolist() == [0.0] * vlm.num_layers
    assert all(parameter.grad is None for parameter in vlm.model.parameters())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in vlm.layers)


def test_states_that_depend_on_the_text_are_refused(loaded):
    vlm = loaded("paligemma")
    encoded = ask(vlm, 1)
    cache = prefill(vlm, encoded)
    with pytest.raises(InputError, match="whose states depend on the text behind them"):
        swap_estimates(vlm, encoded, cache, cache, ANSWERS)
