"""Rows that share what their edits have in common, against a pass of its own for each."""

import pytest
import tiny
import torch
from transformers import DynamicCache

from vfl.engine.attention_tap import tapped
from vfl.engine.branching import branching
from vfl.engine.layer_hooks import layer_hooks
from vfl.metrics.head_masking import MaskedRows


@pytest.fixture(scope="module", params=sorted({*tiny.FAMILIES, *tiny.FURTHER}))
def vlm(request, loaded):
    return loaded(request.param, dtype="float64")


@pytest.fixture(scope="module")
def prompts(vlm):
    asked = [vlm.ask("how many cats are there", tiny.picture(seed=seed, size=(48, 64))) for seed in (1, 2)]
    return asked if vlm.joins_images else asked[:1]


def edits(vlm, heads):
    return [frozenset(head for at, head in heads if at == layer) or None for layer in range(vlm.num_layers)]


@pytest.mark.parametrize("whole", [False, True])
@torch.no_grad()
def test_rows_are_passes_of_their_own(vlm, prompts, whole):
    last = vlm.num_layers - 1
    sets = [[], [(0, 0)], [(0, 0), (last, 1)], [(0, 0), (1, 1)], [(last, 0)], [(1, 0), (1, 1)], [(0, 0)]]
    rows = [(owner, number) for owner in range(len(prompts)) for number in range(len(sets))]
    masked = MaskedRows([sets[number] for _, number in rows], "zero")
    every, ran = masked.heads, []

    def choose(places):
        masked.heads = [every[place] for place in places]

    def count(layer_idx, state, arguments):
        ran.append((layer_idx, len(state)))

    with tapped(vlm, rewrite=masked), layer_hooks(vlm.layers, count):
        chosen = [(owner, edits(vlm, sets[number])) for owner, number in rows]
        logits, cache = branching(vlm, prompts, chosen, choose, whole=whole)
    for place, (owner, number) in enumerate(rows):
        encoded = prompts[owner]
        with tapped(vlm, rewrite=MaskedRows([sets[number]], "zero")):
            own = DynamicCache()  # of all positions, in sliding layers too
            alone = vlm.model(**encoded.inputs, position_ids=encoded.positions, past_key_values=own, use_cache=True)
        # rotations and masks of some models round to float32
        torch.testing.assert_close(logits[place], alone.logits[0, -1], rtol=0, atol=1e-6)
        for ours, theirs in zip(cache.layers, own.layers, strict=True):
            torch.testing.assert_close(ours.keys[place], theirs.keys[0], rtol=0, atol=1e-6)
            torch.testing.assert_close(ours.values[place], theirs.values[0], rtol=0, atol=1e-6)
    at_first = [count for layer, count in ran if layer == 0]
    assert max(at_first) == len(prompts), "rows of a prompt that are edited alike are one"
