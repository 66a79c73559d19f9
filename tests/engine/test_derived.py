"""Derived image caches equal full forwards with the same edit, and are the plain one where they edit nothing."""

import pytest
import tiny
import torch
from full_passes import tapped

from vfl.engine.derived_caches import (
    all_alone,
    all_blind_to_text,
    blind_to_text,
    each_alone,
    late_entries,
    late_entry,
)
from vfl.engine.image_cache import prefill
from vfl.engine.plan import Plan
from vfl.engine.sweep import sweep
from vfl.errors import InputError


@pytest.fixture(scope="module", params=sorted({*tiny.FAMILIES, *tiny.AUDIO} - {"paligemma"}))
def vlm(request, loaded):
    return loaded(request.param, dtype="float64")


@pytest.fixture(scope="module")
def target(vlm):
    return ask(vlm, 1)


def ask(vlm, seed):
    shown = tiny.sound(seed) if vlm.medium.name == "audio" else tiny.picture(seed=seed)
    return vlm.ask("how many cats are there", shown)


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9 * max(1.0, float(theirs.abs().max())))


def same_cache(first, second):
    for ours, theirs in zip((*first.keys, *first.values), (*second.keys, *second.values), strict=True):
        close(ours, theirs)


def edited_forward(vlm, encoded, hidden_below, edit):
    """Logits of a full forward: the text can't see the image below a layer, and `edit(layer, state, mask)` applies."""
    slots = torch.cat([torch.arange(span.start, span.end) for span in encoded.spans])
    readers = torch.ones(encoded.length, dtype=torch.bool)
    readers[slots] = False

    def before(layer_idx):
        def hook(module, args, kwargs):
            state, mask = args[0] if args else kwargs["hidden_states"], kwargs.get("attention_mask")
            if mask is None:
                mask = torch.ones(encoded.length, encoded.length, dtype=torch.bool).tril()[None, None]
            state, mask = edit(layer_idx, state.clone(), mask.clone())
            kwargs = {name: value for name, value in kwargs.items() if name != "hidden_states"}
            return (state, *args[1:]), kwargs | {"attention_mask": mask}

        return hook

    handles = [
        layer.register_forward_pre_hook(before(i), with_kwargs=True, prepend=True) for i, layer in enumerate(vlm.layers)
    ]
    try:
        with tapped(vlm) as tap, torch.no_grad():
            tap.slots, tap.readers, tap.edits = slots, readers, dict.fromkeys(range(hidden_below))
            return vlm.model(**encoded.inputs, position_ids=encoded.positions, use_cache=False).logits[0, -1]
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("first", [0, 1, 3])
def test_late_entry_equals_a_forward_whose_raw_embeddings_enter_there(vlm, target, first):
    (span,) = target.spans
    raw = {}

    def edit(layer_idx, state, mask):
        if layer_idx == 0:
            raw["embeddings"] = state[:, span.start : span.end].clone()
        if layer_idx == first:
            state[:, span.start : span.end] = raw["embeddings"]
        return state, mask

    image_cache = late_entry(vlm, target, first)
    plan = Plan.hide(range(first)) | Plan.swap(range(first, vlm.num_layers), image_cache)
    close(sweep(vlm, target, [plan]).logits[0], edited_forward(vlm, target, first, edit))


@pytest.mark.parametrize("make", [blind_to_text, each_alone])
def test_a_blind_cache_equals_a_forward_with_those_masks(vlm, target, make):
    (span,), below = target.spans, 2
    itself = torch.eye(target.length, dtype=torch.bool)

    def edit(layer_idx, state, mask):
        if layer_idx < below:
            if make is each_alone:
                seen = mask[..., span.start : span.end, :] & itself[span.start : span.end]
                mask[..., span.start : span.end, :] = seen
            mask[..., span.start : span.end, : span.start] = False
        return state, mask

    plan = Plan.hide(range(below)) | Plan.swap(range(below, vlm.num_layers), make(vlm, target, below))
    close(sweep(vlm, target, [plan]).logits[0], edited_forward(vlm, target, below, edit))


def test_caches_that_edit_nothing_are_the_plain_cache(vlm, target):
    own = prefill(vlm, target)
    same_cache(late_entry(vlm, target, 0), own)
    same_cache(blind_to_text(vlm, target, 0), own)
    same_cache(each_alone(vlm, target, 0), own)


@pytest.mark.parametrize("make", [late_entry, each_alone])
def test_layers_that_the_model_lacks_are_refused(vlm, target, make):
    with pytest.raises(InputError, match=f"the model has {vlm.num_layers}"):
        make(vlm, target, vlm.num_layers + 1)


@pytest.mark.parametrize("make", [late_entry, each_alone])
def test_a_prefix_lm_has_no_such_caches(loaded, make):
    vlm = loaded("paligemma")
    with pytest.raises(InputError, match="see the question"):
        make(vlm, vlm.ask("how many", tiny.picture()), 1)


@pytest.mark.parametrize(
    ("together", "alone"), [(late_entries, late_entry), (all_alone, each_alone), (all_blind_to_text, blind_to_text)]
)
def test_all_at_once_are_those_made_one_by_one(vlm, target, together, alone):
    prompts, layers = [target, ask(vlm, 2)], [3, 1]
    made = together(vlm, prompts, layers)
    for encoded, caches in zip(prompts, made, strict=True):
        for layer, ours in zip(layers, caches, strict=True):
            same_cache(ours, alone(vlm, encoded, layer))
            assert ours.image_key == encoded.image_key
    assert together(vlm, prompts, []) == [[], []]
