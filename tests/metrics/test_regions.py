"""Regions of tokens: changing a part of the picture changes most the tokens that are said to show it."""

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from vfl.engine.vision_embeddings import vision_embeddings
from vfl.errors import InputError
from vfl.metrics.regions import overlaps, token_regions

NEWLINES = {"llava_next": 4, "llava_onevision": 4}  # one a row of the 4 x 4 cells of the tiles
CROPPED = ("llava",)


@pytest.fixture(scope="module", params=sorted(tiny.FAMILIES))
def family(request):
    return request.param


@pytest.fixture(scope="module")
def vlm(family, loaded):
    return loaded(family, dtype="float64", device="cpu")


@pytest.mark.parametrize("size", [(64, 48), (40, 96)])
def test_tokens_change_where_the_picture_does(vlm, size):
    width, height = size
    picture = tiny.picture(1, size)
    encoded = vlm.ask("how many", picture)
    regions = token_regions(vlm, encoded)
    plain = vision_embeddings(vlm, encoded)
    assert regions.shape == (len(plain), 4)
    inside, seen = 0, 0
    for row in range(4):
        for column in range(4):
            box = [column * width // 4, row * height // 4, (column + 1) * width // 4, (row + 1) * height // 4]
            pixels = np.array(picture)
            pixels[box[1] : box[3], box[0] : box[2]] = 255 - pixels[box[1] : box[3], box[0] : box[2]]
            changed = (vision_embeddings(vlm, vlm.ask("how many", Image.fromarray(pixels))) - plain).norm(dim=-1)
            shown = overlaps(regions, [box])
            if not shown.any():  # the processor cuts this part off; resampling may let a neighbouring pixel in
                assert vlm.family.name == "LLaVA-1.5"
                continue
            seen += 1
            inside += bool(shown[changed.argmax()])
            assert changed[shown].mean() > 0
    assert seen >= 8
    assert inside / seen >= 0.7, "the token that changes most shows the changed part, for random towers mostly"


def test_regions_cover_the_picture(vlm, family):
    regions = token_regions(vlm, vlm.ask("how many", tiny.picture()))
    newlines = regions.isnan().any(1)
    assert int(newlines.sum()) == NEWLINES.get(family, 0)
    regions = regions[~newlines]
    width, height = tiny.SIZE
    assert (regions[:, 2:] > regions[:, :2]).all()
    across = [regions[:, 0].min(), regions[:, 2].max(), regions[:, 1].min(), regions[:, 3].max()]
    left, right = (8, 56) if family in CROPPED else (0, width)  # the middle square
    torch.testing.assert_close(torch.stack(across), torch.tensor([left, right, 0, height]).double(), rtol=0, atol=0.5)


@pytest.mark.parametrize("one_tile", ["qwen2_5_vl", "llava", "gemma3", "paligemma"])
def test_reading_order_within_a_tile(loaded, one_tile):
    vlm = loaded(one_tile)
    regions = token_regions(vlm, vlm.ask("how many", tiny.picture()))
    middle = ((regions[:, :2] + regions[:, 2:]) / 2).round()
    assert torch.equal(middle, middle[torch.from_numpy(np.lexsort((middle[:, 0], middle[:, 1])))])


def test_several_images_are_refused(vlm):
    images = [{"type": "image", "image": tiny.picture(seed=seed)} for seed in (1, 2)]
    encoded = vlm.encode([{"role": "user", "content": [*images, {"type": "text", "text": "how many"}]}])
    with pytest.raises(InputError, match="one image; this one has 2"):
        token_regions(vlm, encoded)


def test_touching_is_not_overlapping():
    regions = torch.tensor([[0, 0, 10, 10], [10, 0, 20, 10], [float("nan")] * 4]).double()
    assert overlaps(regions, [(0, 0, 10.1, 10)]).tolist() == [True, False, False]
    assert overlaps(regions, [(0, 0, 11, 1), (0, 0, 1, 1)]).tolist() == [True, True, False]
    assert overlaps(regions, []).tolist() == [False, False, False]
