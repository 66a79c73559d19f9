"""Attention to the object's region, and the box drawn around it."""

import json

import numpy as np
import pytest

from vfl.errors import InputError
from vfl.metrics.head_weight import head_weight, region_masses
from vfl.metrics.heads import image_attention
from vfl.metrics.objects import Places, object_tokens
from vfl.metrics.prompts import prompts_of
from vfl.metrics.visual_prompt import outlined, visual_prompt


def test_the_regions_weight_is_a_part_of_the_images(vlm, boxed, untouched):
    result = head_weight(vlm, boxed)
    json.dumps(result, allow_nan=False)
    encoded = list(prompts_of(vlm, boxed))
    assert result["heads"] == image_attention(vlm, encoded)["heads"]
    assert (np.array(result["region_heads"]) <= np.array(result["heads"]) + 1e-12).all()
    regions = Places(vlm).of(encoded[0])
    whole, part = object_tokens(regions, [(0, 0, 64, 48)]), object_tokens(regions, boxed[0].boxes["image"])
    masses, inside, outside = region_masses(vlm, encoded[:1] * 3, (whole, part, ~part))
    assert masses[0] == pytest.approx(inside[1] + outside[1])
    assert 0 < result["scalars"]["region_share"]["value"] < 1
    assert result["scalars"]["region_tokens"]["value"] == pytest.approx(float(part.double().mean()))
    assert result["without_object"] == []


def test_pairs_without_boxes_leave_the_region_out_by_name(vlm, pairs, boxed):
    result = head_weight(vlm, [boxed[0], pairs[1]])
    assert result["without_object"] == [pairs[1].id]
    assert result["scalars"]["region"]["n"] == 1
    assert result["scalars"]["heads"]["n"] == 2
    assert "region" not in head_weight(vlm, pairs)["scalars"]


def test_the_outline_lies_around_the_box(boxed):
    before, after = (np.asarray(image) for image in (boxed[0].open("image"), outlined(boxed[0], "image", "red", 0.02)))
    changed = (before != after).any(-1)
    assert not changed[:16, :20].any() or changed[0, :20].all(), "at the image's edge the line lies inside"
    assert (after[changed] == (255, 0, 0)).all()
    assert changed.any()
    assert not changed[1:15, 1:19].any()


def test_a_box_drawn_changes_what_is_seen(vlm, boxed, pairs, untouched):
    result = visual_prompt(vlm, [*boxed[:1], pairs[1]])
    json.dumps(result, allow_nan=False)
    assert result["without_object"] == [pairs[1].id]
    scalars = result["scalars"]
    assert scalars["naming/off"]["value"] == 1
    assert scalars["naming/off"]["n"] == 1
    assert scalars["naming/gain"]["value"] == scalars["naming/on"]["value"] - 1
    off, on = (result["curves"][f"naming/region_{name}"]["value"] for name in ("off", "on"))
    assert off != on
    for options in ({"colour": "no colour"}, {"width": 0}):
        with pytest.raises(InputError, match=next(iter(options))):
            visual_prompt(vlm, boxed, **options)
