"""Families whose sweep alone is tested: all kinds of plans equal one full forward a row, or the model is refused."""

import pytest
import tiny
import torch
from full_passes import FullPasses
from transformers import Lfm2Config, Lfm2VlConfig, Qwen3_5Config, Qwen3_5MoeConfig

import vfl
from vfl.engine.image_cache import prefill
from vfl.engine.plan import Plan
from vfl.engine.sweep import sweep
from vfl.errors import InputError
from vfl.models.families import FAMILIES

ANSWER = "three red cats"
SHARED = sorted(set(tiny.FURTHER) - {"ovis2"})


def close(ours, theirs):
    return torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9 * max(1.0, float(theirs.abs().max())))


def test_the_table_says_what_is_tested_how():
    by_type = {kind: family.tested for family in FAMILIES for kind in family.model_types}
    assert {kind for kind, tested in by_type.items() if tested == "sweep"} == set(tiny.FURTHER)
    assert {kind for kind, tested in by_type.items() if tested == "throughout"} == {*tiny.FAMILIES, *tiny.AUDIO}


@pytest.mark.parametrize("family", sorted(tiny.FURTHER))
@torch.no_grad()
def test_sweep_equals_full_passes(tiny_folder, family):
    vlm = vfl.load(tiny_folder(family), dtype="float64")
    assert not vlm.family.name.startswith("generic")
    assert vlm.shares_prefix is (family in SHARED)
    vlm.parts.head.weight[vlm.parts.image_token_id] = 0  # a full forward can't be fed the placeholder
    target, source = (vlm.ask("how many cats are there", tiny.picture(seed=seed, size=(48, 64))) for seed in (1, 2))
    image_cache, every = prefill(vlm, source), list(range(vlm.num_layers))
    rows = [([], []), *(([layer], []) for layer in every), (every[1:3], []), ([], every[1:2]), ([], every)]
    plans = [Plan.swap(swapped, image_cache) | Plan.hide(hidden) for swapped, hidden in rows]
    result = sweep(vlm, target, plans, answers=[ANSWER], max_new_tokens=3)
    full = FullPasses(vlm, target, source, "text")
    for row, (swapped, hidden) in enumerate(rows):
        close(result.logits[row], full.logits(swapped, hidden)[-1])
        close(result.answer_logprobs[row, 0], full.logprob(swapped, hidden, vlm.answer_ids(ANSWER)))
        assert full.is_greedy(swapped, hidden, result.token_ids[row], 3)
    moved = (result.logits[1:] - result.logits[0]).abs().amax(-1)
    assert moved.min() > 1e-4, "every layer reads the image"
    if family in SHARED:
        whole = sweep(vlm, target, [Plan.swap(every, image_cache)], answers=[ANSWER])
        close(whole.logits[0], vlm.model(**source.inputs, use_cache=False).logits[0, -1])


LAYERS = ["conv", "full_attention"]
HYBRIDS = {
    "linear_attention": [Qwen3_5Config(), Qwen3_5MoeConfig()],
    "conv": [Lfm2VlConfig(text_config=Lfm2Config(num_hidden_layers=2, layer_types=LAYERS))],
}


@pytest.mark.parametrize(("kind", "config"), [(kind, config) for kind, some in HYBRIDS.items() for config in some])
def test_hybrids_are_refused_before_their_weights_are_read(tmp_path, kind, config):
    config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=rf"{config.model_type}.*hybrid linear attention.*layers \({kind}\)"):
        vfl.load(tmp_path)


def test_layers_that_share_keys_and_values_are_refused(tiny_folder):
    with pytest.raises(InputError, match="its last 2 of 4 decoder layers use the keys and values of earlier ones"):
        vfl.load(tiny_folder("gemma4_shared"))
