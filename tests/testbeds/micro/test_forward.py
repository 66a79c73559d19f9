"""The packed training forward against the plain model, asked one question at a time, in float64."""

import numpy as np
import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

import vfl
from vfl.testbeds.micro.checkpoint import write_folder
from vfl.testbeds.micro.config import Recipe
from vfl.testbeds.micro.data import fill_slots
from vfl.testbeds.micro.forward import Forward, patchify, tapped
from vfl.testbeds.micro.packing import Packer, all_own
from vfl.testbeds.micro.questions import grounding
from vfl.testbeds.micro.scenes import Scene, mixed_scene, paint
from vfl.testbeds.micro.tap import NONE, OTHER


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    rng = np.random.default_rng(3)
    return [mixed_scene(rng) for _ in range(2)]


def images_of(scenes: list[Scene]) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.array(paint(scene)) for scene in scenes]))


def test_patches_are_the_image_processors(processor: Qwen2_5_VLProcessor, scenes: list[Scene]) -> None:
    theirs = processor.image_processor([paint(scene) for scene in scenes], return_tensors="pt")
    assert theirs["image_grid_thw"].tolist() == [[1, 10, 10]] * len(scenes)
    torch.testing.assert_close(patchify(images_of(scenes)).flatten(0, 1), theirs["pixel_values"], atol=1e-6, rtol=0)


def test_packed_questions_equal_questions_asked_alone(
    model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, packer: Packer, scenes: list[Scene]
) -> None:
    rng = np.random.default_rng(0)
    asked = [fill_slots(rng, scene, packer) for scene in scenes]
    rows = packer.pack(asked)
    pixels = patchify(images_of(scenes)).double()
    with torch.no_grad(), tapped(model):
        forward = Forward(model)
        features = forward.vision(images_of(scenes))
        readings = all_own(rows, len(forward.text.layers))
        packed = model.lm_head(forward.decode(features, rows, None, None))
        read_own = model.lm_head(forward.decode(features, rows, readings, torch.tensor([1, 0])))
    torch.testing.assert_close(read_own, packed, atol=1e-9, rtol=0)

    for row, slots in enumerate(asked):
        for number, question in enumerate([question for slot in slots for question in slot], start=1):
            content = [{"type": "image"}, {"type": "text", "text": question.text}]
            prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            text = f"{prompt}{question.answer}<|im_end|>"
            alone = processor(text=[text], images=[paint(scenes[row])], return_tensors="pt")
            alone["pixel_values"] = pixels[row]
            with torch.no_grad():
                logits = model(**alone).logits[0]
            at = packer.head + torch.nonzero(rows.blocks[row] == number)[:, 0]
            assert torch.equal(rows.input_ids[row, at], alone["input_ids"][0, packer.head :])
            torch.testing.assert_close(packed[row, at], logits[packer.head :], atol=1e-9, rtol=0)


def test_readings_act_on_their_question_alone_and_only_where_they_say(
    model: Qwen2_5_VLForConditionalGeneration, packer: Packer, scenes: list[Scene]
) -> None:
    rng = np.random.default_rng(1)
    rows = packer.pack([fill_slots(rng, scene, packer) for scene in scenes])
    forward, other = Forward(model), torch.tensor([1, 0])
    with torch.no_grad(), tapped(model):
        features = forward.vision(images_of(scenes))
        own = forward.decode(features, rows, None, None)
        for reading in (OTHER, NONE):
            readings = all_own(rows, 3)
            readings[1, 0][rows.blocks[0] == 2] = reading
            hidden = forward.decode(features, rows, readings, other)
            changed = (hidden - own).abs().amax(-1) > 1e-12
            expected = torch.zeros_like(changed)
            expected[0, packer.head :] = rows.blocks[0] == 2
            assert torch.equal(changed, expected)
        # Two rows with the same image: reading the other is reading one's own.
        same = features[:1].expand(2, -1, -1)
        twice = forward.decode(same, rows, torch.full_like(all_own(rows, 3), OTHER), other)
        torch.testing.assert_close(twice, forward.decode(same, rows, None, None), atol=1e-9, rtol=0)


def test_the_tap_is_gone_afterwards(model: Qwen2_5_VLForConditionalGeneration) -> None:
    config = model.model.language_model.config
    before = config._attn_implementation

    def fail_inside() -> None:
        with tapped(model):
            assert config._attn_implementation != before
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert config._attn_implementation == before


def test_reading_the_other_image_is_what_the_sweep_calls_a_swap(
    model: Qwen2_5_VLForConditionalGeneration, recipe: Recipe, packer: Packer, scenes: list[Scene]
) -> None:
    """The planted truth and the sweep speak of the same intervention."""
    write_folder(recipe.output, model, packer.processor, recipe, 0)
    vlm = vfl.load(recipe.output, dtype="float64")
    question = grounding("cat", 0)
    mine, theirs = (vlm.ask(question.text, paint(scene)) for scene in scenes)
    image_cache = vfl.prefill(vlm, theirs)
    layers = [[], [1], [0, 2], [0, 1, 2]]
    swept = vfl.sweep(vlm, mine, [vfl.Plan.swap(chosen, image_cache) for chosen in layers]).logits

    rows = packer.single().pack([[[question]], [[question]]])
    first_answer = int((rows.labels[0] >= 0).nonzero()[0])
    with torch.no_grad(), tapped(model):
        forward = Forward(model)
        features = forward.vision(images_of(scenes))
        for chosen, expected in zip(layers, swept, strict=True):
            readings = all_own(rows, 3)
            readings[chosen] = OTHER
            hidden = forward.decode(features, rows, readings, torch.tensor([1, 0]))
            logits = model.lm_head(hidden[0, first_answer])
            torch.testing.assert_close(logits, expected.to(logits), atol=1e-5, rtol=0)
    assert (swept[0] - swept[-1]).abs().max() > 1e-3
