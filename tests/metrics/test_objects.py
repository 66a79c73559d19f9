"""Sets of image tokens: rings, the last row, and the object painted over."""

import numpy as np
import pytest
import torch

from vfl.engine.states import is_image_token
from vfl.metrics.objects import Places, at_positions, last_row, noised, object_tokens


def grid(rows, columns, side=10):
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([x, y, x + 1, y + 1], dim=-1).flatten(0, 1).double() * side


def test_rings_are_the_eight_around():
    regions = grid(6, 7)
    inside = [22.0, 22.0, 28.0, 28.0]  # within one token
    for rings, count in ((0, 1), (1, 9), (2, 25)):
        on_object = object_tokens(regions, [inside], rings).view(6, 7)
        assert int(on_object.sum()) == count
        expected = torch.zeros(6, 7, dtype=torch.bool)
        expected[2 - rings : 3 + rings, 2 - rings : 3 + rings] = True
        assert torch.equal(on_object, expected)
    assert not object_tokens(regions, [], 2).any()


def test_rings_cross_the_seams_of_tiles_but_not_scales():
    left, right = grid(4, 4), grid(4, 4) + torch.tensor([40.0, 0, 40, 0]).double()
    thumbnail = grid(4, 4) * torch.tensor([2.0, 1, 2, 1]).double()
    regions = torch.cat([left, right, thumbnail, torch.full((1, 4), torch.nan).double()])
    on_object = object_tokens(regions, [[32.0, 12.0, 38.0, 18.0]], 1)  # the left tile's right edge
    tiles = torch.cat([on_object[:16].view(4, 4), on_object[16:32].view(4, 4)], dim=1)
    assert tiles.nonzero().tolist() == [[row, column] for row in range(3) for column in (2, 3, 4)]
    assert on_object[32:48].view(4, 4).nonzero().tolist() == [[row, column] for row in range(3) for column in range(3)]
    assert not on_object[-1]


def test_the_last_row_is_that_of_the_last_tile_with_its_newline():
    newline = torch.full((1, 4), torch.nan).double()
    regions = torch.cat([grid(3, 4), grid(2, 3), newline])
    assert last_row(regions).nonzero().flatten().tolist() == [15, 16, 17, 18]
    assert int(last_row(grid(3, 4)).sum()) == 4


def test_sets_of_a_real_prompt_stand_at_its_image_tokens(vlm, prompts):
    regions = Places(vlm).of(prompts[0])
    bottom = last_row(regions)
    assert 0 < int(bottom.sum()) < len(bottom)
    placed = at_positions(vlm, prompts[0], bottom)
    assert placed.shape == prompts[0].input_ids.shape
    assert torch.equal(placed[0, is_image_token(vlm, prompts[0])], bottom)
    assert int(placed.sum()) == int(bottom.sum())


def test_noise_covers_the_box_alone(boxed):
    before, after = (np.asarray(image) for image in (boxed[0].open("image"), noised(boxed[0], "image")))
    changed = (before != after).any(-1)
    assert changed[:16, :20].mean() > 0.9
    assert not changed[18:].any()
    assert not changed[:, 22:].any()
    assert np.array_equal(after, np.asarray(noised(boxed[0], "image")))
    with pytest.raises(KeyError):
        noised(boxed[0], "source_image")
