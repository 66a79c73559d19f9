"""Skipping is exact: the same logits and answers as full passes with masks, with fewer keys in the cache."""

from pathlib import Path

import pytest
import tiny
import torch

from vfl.engine.derived_caches import late_entry
from vfl.engine.plan import Plan
from vfl.engine.skip.running import cache_bytes, generate, skipping
from vfl.engine.skip.skip import Skip, skip_by_map
from vfl.engine.sweep import sweep
from vfl.errors import InputError
from vfl.functionmap import FunctionMap

MAP = Path(__file__).parents[2] / "recipes" / "micro" / "map.json"
FAMILIES = ["llava", "qwen2_5_vl", "smolvlm", "qwen3_vl", "gemma3"]


@pytest.fixture(scope="module", params=FAMILIES)
def vlm(request, loaded):
    return loaded(request.param, dtype="float64")


@pytest.fixture(scope="module")
def encoded(vlm):
    return vlm.ask("is there a red cube or a blue ball", tiny.picture())


def plan_of(vlm, encoded, skip):
    """The same as a plan: hidden layers, and the late image cache where text reads."""
    hidden = Plan.hide([layer for layer in range(vlm.num_layers) if layer not in skip.visible])
    if skip.entry == 0 or not skip.visible:
        return hidden
    return hidden | Plan.swap(skip.visible, late_entry(vlm, encoded, skip.entry))


@pytest.mark.parametrize(
    ("entry", "exit", "hidden"),
    [(0, 5, ()), (2, 5, ()), (0, 3, ()), (1, 4, ()), (0, 5, (1, 4)), (2, 2, ()), (1, 5, (2,))],
)
def test_answers_and_logits_are_those_of_masked_passes(vlm, encoded, entry, exit, hidden):
    num_layers = vlm.num_layers
    skip = Skip(num_layers, entry, min(exit, num_layers) if exit < 5 else num_layers, frozenset(hidden))
    expected = sweep(vlm, encoded, [plan_of(vlm, encoded, skip)], max_new_tokens=4)
    with torch.no_grad(), skipping(vlm, encoded, skip):
        logits = vlm.model(**encoded.inputs, position_ids=encoded.positions, use_cache=False).logits[0, -1]
    torch.testing.assert_close(logits, expected.logits[0], rtol=0, atol=1e-9 * float(logits.abs().max()))
    ids, cache = generate(vlm, encoded, skip, max_new_tokens=4)
    assert ids == expected.token_ids[0]
    text = encoded.length - encoded.num_vision_tokens
    past = cache.get_seq_length() - encoded.length
    for layer, held in enumerate(cache.layers):
        assert held.keys.shape[2] == (encoded.length if layer in skip.visible else text) + past


def test_nothing_skipped_is_the_plain_model_and_nothing_is_left(vlm, encoded):
    inputs = dict(encoded.inputs, position_ids=encoded.positions, use_cache=False)
    with torch.no_grad():
        plain = vlm.model(**inputs).logits
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in vlm.model.modules()]
    with torch.no_grad(), skipping(vlm, encoded, Skip(vlm.num_layers, 0, vlm.num_layers)):
        assert torch.equal(vlm.model(**inputs).logits, plain)
    everything = Skip(vlm.num_layers, 0, vlm.num_layers)
    ids, cache = generate(vlm, encoded, everything, max_new_tokens=4)
    plain_ids, plain_cache = generate(vlm, encoded, None, max_new_tokens=4)
    assert ids == plain_ids
    assert cache_bytes(cache) == cache_bytes(plain_cache)
    with pytest.raises(RuntimeError, match="stop"), skipping(vlm, encoded, Skip(vlm.num_layers, 1, 2)):
        raise RuntimeError("stop")
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in vlm.model.modules()] == hooks
    with torch.no_grad():
        assert torch.equal(vlm.model(**inputs).logits, plain)


def test_nothing_skipped_costs_no_hook(vlm, encoded, monkeypatch):
    """Hooks that change nothing cost a tenth of each token's time."""
    monkeypatch.setattr("vfl.engine.skip.running.skipping", None)
    whole = Skip(vlm.num_layers, 0, vlm.num_layers)
    assert whole.nothing
    assert generate(vlm, encoded, whole, max_new_tokens=4)[0] == generate(vlm, encoded, None, max_new_tokens=4)[0]
    assert not Skip(vlm.num_layers, 0, vlm.num_layers, frozenset({1})).nothing
    assert not Skip(vlm.num_layers, 1, vlm.num_layers).nothing


def test_fewer_tokens_are_computed(vlm, encoded):
    """The layers that vision tokens skip get the text alone."""
    seen: dict[int, int] = {}

    def watch(at):
        def hook(module, args, output):
            seen[at] = args[0].shape[1]

        return hook

    handles = [layer.register_forward_hook(watch(at)) for at, layer in enumerate(vlm.layers)]
    try:
        generate(vlm, encoded, Skip(vlm.num_layers, 1, 3), max_new_tokens=1)
    finally:
        for handle in handles:
            handle.remove()
    text = encoded.length - encoded.num_vision_tokens
    assert seen == {at: encoded.length if at in (1, 2) else text for at in range(vlm.num_layers)}


def test_what_cannot_be_skipped_is_refused(loaded):
    with pytest.raises(InputError, match="0 <= entry <= exit <= 5"):
        Skip(5, 3, 2)
    paligemma = loaded("paligemma")
    encoded = paligemma.ask("how many", tiny.picture())
    skip = Skip(paligemma.num_layers, 1, 2)
    with pytest.raises(InputError, match="see the question"), skipping(paligemma, encoded, skip):
        pass


def test_a_map_hides_the_other_functions_layers():
    fmap = FunctionMap.load(MAP)
    for keep in (["counting"], ["counting", "ocr"], list(fmap.functions)):
        skip = skip_by_map(fmap, keep)
        kept = {layer for name in keep for layer in fmap.functions[name].layers}
        others = {layer for name, entry in fmap.functions.items() if name not in keep for layer in entry.layers}
        assert skip.hidden == others - kept
        assert kept <= set(skip.visible) <= set(skip.computed)
    with pytest.raises(InputError, match="no function juggling"):
        skip_by_map(fmap, ["juggling"])
