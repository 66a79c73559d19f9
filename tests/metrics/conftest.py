"""Tiny models of three families, left-padded batches, and probe pairs that each model answers."""

import pytest
import tiny
import torch
from own_suite import write_own_suite

from vfl.probes.asking import MAX_NEW_TOKENS
from vfl.probes.pair import read_suite

FAMILIES = ["llava", "qwen2_5_vl", "smolvlm"]
ANSWER = 6  # tokens
QUESTIONS = ("how many cats are there", "is there a red cube or a blue ball in the image")


@pytest.fixture(scope="session", params=FAMILIES)
def vlm(request, loaded):
    return loaded(request.param, dtype="float64")


@pytest.fixture(scope="session")
def prompts(vlm):
    return [vlm.ask(question, tiny.picture(seed=seed)) for seed, question in enumerate(QUESTIONS)]


@pytest.fixture(scope="module", autouse=True)
def _short_answers():
    """A random model goes on for as long as it may: a few tokens show what it answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MAX_NEW_TOKENS, "text", ANSWER)
        yield


@pytest.fixture(scope="session")
def pairs(vlm, tmp_path_factory):
    """Pairs whose answers are the model's own; one of another function."""
    folder = tmp_path_factory.mktemp("suite") / "probes"
    suite = read_suite(write_own_suite(vlm, folder, 3, max_new_tokens=ANSWER))
    return [pair.model_copy(update={"function": ("naming", "reading")[i % 2]}) for i, pair in enumerate(suite)]


@pytest.fixture(scope="session")
def boxed(pairs):
    """The same pairs with a box on each target image and a label."""
    boxes = {"image": [[0.0, 0.0, 20.0, 16.0]]}
    return [pair.model_copy(update={"boxes": boxes, "label": "cat"}) for pair in pairs]


@pytest.fixture
def untouched(vlm, prompts):
    """Fails where a test leaves the model other than it was: logits, hooks, attention implementation."""
    config = vlm.parts.decoder.config

    def state():
        # transformers' own capture of outputs hooks some vision towers for good
        hooks = [list(m._forward_hooks) + list(m._forward_pre_hooks) for m in vlm.model.modules()]
        with torch.no_grad():
            logits = vlm.model(**prompts[0].inputs, position_ids=prompts[0].positions, use_cache=False).logits
        return hooks, config._attn_implementation, logits

    state()  # the first pass may install transformers' hooks
    before = state()
    yield
    after = state()
    assert after[:2] == before[:2]
    assert torch.equal(after[2], before[2])


@pytest.fixture
def failing_layer(vlm):
    """A layer in the middle that raises."""

    def fail(module, args, kwargs):
        raise RuntimeError("a layer failed")

    handle = vlm.layers[2].register_forward_pre_hook(fail, with_kwargs=True)
    yield
    handle.remove()
