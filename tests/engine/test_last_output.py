"""The decoder's last layer on the last position alone: output, keys and gradients are those of all positions."""

import pytest
import tiny
import torch
from transformers import DynamicCache

from vfl.engine.decoder_inputs import decoder_inputs, take_rows
from vfl.engine.last_output import last_output


@pytest.fixture(scope="module", params=sorted({*tiny.FAMILIES, *tiny.FURTHER}))
def vlm(request, loaded):
    return loaded(request.param, dtype="float64")


@pytest.fixture(scope="module")
def arguments(vlm):
    """Two rows of one prompt, the second with other embeddings."""
    encoded = vlm.ask("how many cats are there", tiny.picture(seed=1, size=(48, 64)))
    rows = take_rows(decoder_inputs(vlm, encoded.inputs), [0, 0])
    rows["inputs_embeds"][1] *= 0.9
    return rows


def close(ours, theirs, within=1e-9):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=within * max(1.0, float(theirs.abs().max())))


@torch.no_grad()
def test_output_and_cache_are_those_of_all_positions(vlm, arguments):
    caches = DynamicCache(), DynamicCache()
    ours = last_output(vlm, arguments, caches[0])
    theirs = vlm.parts.decoder(**arguments, past_key_values=caches[1], use_cache=True).last_hidden_state[:, -1]
    close(ours, theirs)
    close(last_output(vlm, arguments), theirs)
    for kept, expected in zip(caches[0].layers, caches[1].layers, strict=True):
        close(kept.keys, expected.keys)
        close(kept.values, expected.values)


def test_the_last_layer_runs_for_one_position(vlm, arguments):
    lengths = []
    hook = vlm.layers[-1].register_forward_hook(lambda module, args, output: lengths.append(args[0].shape[1]))
    with torch.no_grad():
        last_output(vlm, arguments)
    hook.remove()
    features = arguments.get("deepstack_visual_embeds") or ()
    assert lengths == [arguments["inputs_embeds"].shape[1] if len(features) >= vlm.num_layers else 1]


def test_gradients_are_those_of_all_positions(vlm, arguments):
    found = []
    for run in (last_output, lambda vlm, rows: vlm.parts.decoder(**rows, use_cache=False).last_hidden_state[:, -1]):
        embeds = arguments["inputs_embeds"].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(run(vlm, {**arguments, "inputs_embeds": embeds})[:, 0].sum(), embeds)
        found.append(gradient)
    close(*found, within=1e-6)  # norms round to float32, their gradients too
