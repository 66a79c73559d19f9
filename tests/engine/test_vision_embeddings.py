"""Vision embeddings are what the first decoder layer gets, and their mean counts every image alike."""

import pytest
import tiny
import torch

from vfl.engine.layer_trace import trace_prompt
from vfl.engine.vision_embeddings import mean_embedding, vision_embeddings
from vfl.errors import InputError


@pytest.mark.parametrize("family", sorted(set(tiny.FAMILIES) | set(tiny.AUDIO)))
def test_they_are_the_decoders_inputs_bit_by_bit(loaded, family):
    vlm = loaded(family, dtype="float64")
    encoded = vlm.ask("how many", tiny.sound(1) if vlm.medium.name == "audio" else tiny.picture())
    with torch.no_grad():
        states = trace_prompt(vlm, encoded).hidden[0][0]
    ours = vision_embeddings(vlm, encoded)
    assert torch.equal(ours, states[encoded.input_ids[0] == vlm.parts.image_token_id])
    assert len(ours) == int((encoded.input_ids == vlm.parts.image_token_id).sum())


def test_a_large_image_counts_as_much_as_a_small_one(loaded):
    vlm = loaded("qwen2_5_vl", dtype="float64")
    images = [tiny.picture(seed=1), tiny.picture(seed=2, size=(96, 128))]
    embeddings = [vision_embeddings(vlm, vlm.ask("?", image)) for image in images]
    assert len(embeddings[0]) < len(embeddings[1])
    expected = torch.stack([rows.mean(0) for rows in embeddings]).mean(0)
    torch.testing.assert_close(mean_embedding(vlm, images), expected, rtol=0, atol=1e-12)
    with pytest.raises(InputError, match="without images"):
        mean_embedding(vlm, [])
