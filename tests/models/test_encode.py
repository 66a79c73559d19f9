"""Encoding: where the image stands, and what is refused."""

import pytest
import tiny
import torch
from PIL import Image

from vfl.errors import InputError
from vfl.models.medium import read_image

TEXT = {"type": "text", "text": "how many cats"}


@pytest.fixture(scope="module", params=sorted(tiny.FAMILIES))
def vlm(request, loaded):
    return loaded(request.param)


@pytest.fixture(scope="module")
def qwen(loaded):
    return loaded("qwen2_5_vl")


def test_the_span_runs_from_the_first_to_the_last_image_token(vlm):
    encoded = vlm.ask("how many cats", tiny.picture())
    (span,) = encoded.spans
    is_image = encoded.input_ids[0] == vlm.parts.image_token_id
    assert is_image[span.start]
    assert is_image[span.end - 1]
    assert not is_image[: span.start].any()
    assert not is_image[span.end :].any()
    assert encoded.positions.shape[-2:] == (1, encoded.length)
    assert "how many cats" in vlm.tokenizer.decode(encoded.input_ids[0, span.end :])


def test_equal_sizes_give_equal_spans_and_other_pixels_another_key(vlm):
    first, second = (vlm.ask("how many cats", tiny.picture(seed=seed)) for seed in (1, 2))
    assert first.spans == second.spans
    assert first.image_key != second.image_key
    assert first.image_key == vlm.ask("where is the cat", tiny.picture(seed=1)).image_key


def test_images_fill_the_places_without_one(qwen):
    image = tiny.picture(seed=1)
    inline = qwen.encode([{"role": "user", "content": [{"type": "image", "image": image}, TEXT]}])
    filled = qwen.encode([{"role": "user", "content": [{"type": "image"}, TEXT]}], [image])
    assert torch.equal(inline.input_ids, filled.input_ids)
    assert inline.image_key == filled.image_key


def test_a_path_is_as_good_as_an_image(qwen, tmp_path):
    image = tiny.picture(seed=1)
    image.save(tmp_path / "image.png")
    assert qwen.ask("how many", tmp_path / "image.png").image_key == qwen.ask("how many", image).image_key


@pytest.mark.parametrize(
    ("content", "images", "message"),
    [
        ([{"type": "image"}, TEXT], 0, "more image places than images: 0 were given"),
        ([{"type": "image"}, TEXT], 2, "2 images were given but only 1 places"),
        ([TEXT], 0, "hold no image"),
        ([{"type": "video"}, TEXT], 0, "type 'video'"),
    ],
)
def test_images_and_places_must_match(qwen, content, images, message):
    with pytest.raises(InputError, match=message):
        qwen.encode([{"role": "user", "content": content}], [tiny.picture()] * images)


def test_unreadable_images_are_named(tmp_path):
    broken = tmp_path / "broken.png"
    tiny.picture().save(broken)
    broken.write_bytes(broken.read_bytes()[:60])
    (tmp_path / "text.png").write_text("not an image")
    for name in ("broken.png", "text.png", "absent.png"):
        with pytest.raises(InputError, match=name):
            read_image(tmp_path / name)


def test_transparency_shows_white():
    seen = read_image(Image.new("RGBA", (4, 4), (255, 0, 0, 0)))
    assert (seen.mode, seen.getpixel((0, 0))) == ("RGB", (255, 255, 255))


def test_model_sizes_are_the_resized_image_where_boxes_need_it(qwen):
    encoded = qwen.ask("how many", tiny.picture(size=(70, 50)))
    grid = encoded.inputs["image_grid_thw"][0].tolist()
    patch = qwen.processor.image_processor.patch_size
    assert encoded.image_sizes == ((70, 50),)
    assert encoded.model_sizes == ((grid[2] * patch, grid[1] * patch),)
