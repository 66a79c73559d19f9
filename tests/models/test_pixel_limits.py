"""Limits of pictures: the real processors keep them, and families without them say what they have."""

import dataclasses

import pytest
import tiny
import torch
from tiny.qwen import PATCH
from transformers import AutoImageProcessor, Glm4vImageProcessor, PaddleOCRVLImageProcessor, Qwen2VLImageProcessor

import vfl
from vfl.errors import InputError
from vfl.loading.config import configured, identify
from vfl.locate.config import LocateConfig
from vfl.models.pixel_limits import PixelLimits, limits_of, save_limits, saved_limits, set_limits, take_over

LOW, HIGH = 16 * 16, 32 * 32  # one vision token, and four


@dataclasses.dataclass
class Holder:
    """A processor that only sees."""

    image_processor: object


@pytest.fixture(scope="module")
def small(tiny_folder):
    return vfl.load(tiny_folder("qwen2_5_vl"), max_pixels=HIGH)


def test_a_picture_has_fewer_tokens_and_is_what_a_processor_of_that_size_makes(tiny_folder, small):
    large = vfl.load(tiny_folder("qwen2_5_vl"))
    picture = tiny.picture()
    asked = small.ask("How many?", picture)
    assert 0 < asked.num_vision_tokens <= 4 < large.ask("How many?", picture).num_vision_tokens
    size = {"shortest_edge": LOW, "longest_edge": HIGH}
    built = Qwen2VLImageProcessor(patch_size=PATCH, merge_size=2, temporal_patch_size=2, size=size)
    assert torch.equal(asked.inputs["pixel_values"], built(picture, return_tensors="pt")["pixel_values"])
    assert limits_of(small.processor) == PixelLimits(LOW, HIGH)
    assert limits_of(large.processor) == PixelLimits(LOW, 96 * 96)
    assert (identify(small).min_pixels, identify(small).max_pixels) == (LOW, HIGH)


def test_small_pictures_are_enlarged(tiny_folder, small):
    picture = tiny.picture().resize((16, 16))
    assert small.ask("How many?", picture).num_vision_tokens == 1
    large = vfl.load(tiny_folder("qwen2_5_vl"), min_pixels=64 * 64)
    assert large.ask("How many?", picture).num_vision_tokens == 16


@pytest.mark.parametrize("kind", [Qwen2VLImageProcessor, Glm4vImageProcessor, PaddleOCRVLImageProcessor])
def test_processors_that_count_pixels_keep_the_limits(kind):
    images = kind()
    area = (images.patch_size * images.merge_size) ** 2
    set_limits(Holder(images), "any", min_pixels=4 * area, max_pixels=40 * area)
    for side in (30, 300, 900):
        grid = images(tiny.picture().resize((side, side // 2)), return_tensors="pt")["image_grid_thw"][0]
        frames = images.temporal_patch_size if kind is Glm4vImageProcessor else 1
        assert 4 * area <= int(grid.prod()) * images.patch_size**2 * frames <= 40 * area


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_pixels": 0}, "max_pixels is 0; expected a whole number of pixels, at least 256: 16 x 16"),
        ({"min_pixels": -4}, "min_pixels is -4; expected"),
        ({"max_pixels": 255}, "make one vision token of Qwen2.5-VL"),
        ({"max_pixels": 999.5}, "expected a whole number"),
        ({"min_pixels": 2048, "max_pixels": 1024}, "min_pixels is 2048, above max_pixels 1024: expected"),
        ({"min_pixels": 10000}, "own max_pixels 9216.*give both"),
    ],
)
def test_limits_that_no_picture_can_keep_are_refused(tiny_folder, limits, message):
    with pytest.raises(InputError, match=message):
        vfl.load(tiny_folder("qwen2_5_vl"), **limits)


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("llava", "LLaVA-1.5: its CLIPImageProcessor.*size"),
        ("llava_next", "LLaVA-NeXT: its LlavaNextImageProcessor.*image_grid_pinpoints"),
        ("internvl", "InternVL: its GotOcr2ImageProcessor.*max_patches"),
        ("idefics3", "Idefics3: its Idefics3ImageProcessor.*size.*max_image_size"),
        ("gemma3", "Gemma 3: its Gemma3ImageProcessor.*size"),
        ("paligemma", "PaliGemma: its SiglipImageProcessor.*size"),
        ("qwen2_audio", "Qwen2-Audio: it hears sounds"),
    ],
)
def test_families_that_resize_otherwise_say_how(tiny_folder, name, has):
    with pytest.raises(InputError, match=f"max_pixels can't be set for {has}"):
        vfl.load(tiny_folder(name), max_pixels=HIGH)


def test_a_loaded_model_has_its_limits(small, tmp_path):
    configured(LocateConfig, small, {"out": tmp_path, "max_pixels": HIGH})
    with pytest.raises(InputError, match="max_pixels is 2048, and the model was loaded with 1024"):
        configured(LocateConfig, small, {"out": tmp_path, "max_pixels": 2048})
    with pytest.raises(InputError, match="boxes is glm, and the model was loaded with pixel"):
        configured(LocateConfig, small, {"out": tmp_path, "boxes": "glm"})


def test_an_adapters_limits_are_taken_over_unless_others_are_asked_for(tmp_path):
    def fresh(**size):
        return Holder(Qwen2VLImageProcessor(patch_size=PATCH, **size))

    assert saved_limits(tmp_path) is None
    trained = fresh(min_pixels=LOW, max_pixels=HIGH)
    save_limits(trained, tmp_path)
    assert limits_of(AutoImageProcessor.from_pretrained(tmp_path)) == saved_limits(tmp_path) == PixelLimits(LOW, HIGH)
    again = fresh()
    assert take_over(again, "any", tmp_path) == ""
    assert limits_of(again) == PixelLimits(LOW, HIGH)
    assert "trained on pictures of min_pixels 256" in take_over(fresh(), "any", tmp_path, max_pixels=2048)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(InputError, match=r"preprocessor_config.json can't be read"):
        saved_limits(tmp_path)
