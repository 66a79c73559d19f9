"""Questions on files are encoded once, what is made of them is made once, and no more is kept than may be."""

import pytest
import tiny
import torch

from vfl.engine.decoder_inputs import joined_inputs
from vfl.engine.joint_prefill import prefill_all
from vfl.engine.states import between_layers, forward
from vfl.measure.asked_once import AskedOnce, num_bytes


def test_a_file_is_encoded_once_and_a_picture_each_time(loaded, tmp_path):
    vlm = loaded("llava")
    paths = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(paths):
        tiny.picture(seed=seed).save(path)
    plain = vlm.ask("how many cats", paths[0])
    asked = AskedOnce(vlm, kept_bytes=2 * num_bytes(plain.inputs))
    first = asked.ask("how many cats", paths[0])
    assert torch.equal(first.input_ids, plain.input_ids)
    assert first.image_key == plain.image_key
    assert asked.ask("how many cats", paths[0]) is first
    assert asked.ask("how many dogs", paths[0]) is not first
    picture = tiny.picture()
    assert asked.ask("how many cats", picture) is not asked.ask("how many cats", picture)
    assert asked.ask("how many cats", paths[0]) is first, "two fit, and it was used last"
    asked.ask("how many cats", paths[1])
    asked.ask("how many cats", paths[2])
    assert asked.ask("how many cats", paths[0]) is not first
    assert asked.layouts is vlm.layouts
    assert repr(asked) == repr(vlm)


def test_the_vision_tower_sees_a_kept_prompt_once(loaded, tmp_path):
    vlm = loaded("llava")
    path = tmp_path / "picture.png"
    tiny.picture().save(path)
    seen = []
    vlm.model.model.vision_tower.register_forward_hook(lambda *args: seen.append(1))
    asked = AskedOnce(vlm)
    prompt = asked.ask("how many cats", path)
    states = []
    for _ in range(2):
        with between_layers(vlm.layers, lambda layer_idx, before, after: states.append(after)):
            forward(asked, prompt)
    assert len(seen) == 1
    half = len(states) // 2
    assert all(torch.equal(first, again) for first, again in zip(states[:half], states[half:], strict=True))
    forward(vlm, prompt)
    assert len(seen) == 2, "the model itself keeps nothing, as its weights may change"
    small = AskedOnce(vlm, kept_bytes=1)
    for question in ("how many cats", "how many dogs"):
        forward(small, small.ask(question, path))
    assert len(small._prompts) == len(small._made) == 1


@pytest.mark.parametrize("family", sorted(tiny.FAMILIES))
def test_passes_over_a_kept_prompt_are_those_of_the_model(loaded, tmp_path, family):
    """A pass that changed what is kept would be seen by the next; and the decoder alone does what the model does."""
    vlm = loaded(family, dtype="float64")
    path = tmp_path / "picture.png"
    tiny.picture(size=(48, 64)).save(path)
    asked = AskedOnce(vlm)
    prompt = asked.ask("how many cats", path)
    found = []
    for _ in range(2):
        states = []
        with between_layers(vlm.layers, lambda layer_idx, before, after, states=states: states.append(after)):
            forward(asked, prompt)
        found.append(torch.cat(states))
    expected = []
    with torch.no_grad(), between_layers(vlm.layers, lambda layer_idx, before, after: expected.append(after)):
        vlm.model(**prompt.inputs, position_ids=prompt.positions, use_cache=False)
    assert torch.equal(*found)
    torch.testing.assert_close(found[0], torch.cat(expected), rtol=0, atol=1e-9)


def test_only_what_is_named_of_a_kept_prompt_is_kept(loaded, tmp_path):
    vlm = loaded("llava")
    path = tmp_path / "picture.png"
    tiny.picture().save(path)
    made = []

    def make(places):
        made.append(places)
        return [f"{place} of {len(made)}" for place in places]

    asked = AskedOnce(vlm)
    prompt, other = asked.ask("how many cats", path), vlm.ask("how many cats", path)
    wanted = [(prompt, "length"), (prompt, None), (prompt, "length"), (other, "length"), (prompt, "width")]
    first = ["0 of 1", "1 of 1", "0 of 1", "3 of 1", "4 of 1"]
    assert asked.once(wanted, make) == first
    assert asked.once(wanted, make) == [first[0], "1 of 2", first[2], "3 of 2", first[4]]
    assert made == [[0, 1, 3, 4], [1, 3]]
    assert vlm.once(wanted[:3], make) == ["0 of 3", "1 of 3", "2 of 3"], "the model itself keeps nothing"
    assert asked.once([], make) == []


@pytest.mark.parametrize("family", sorted(tiny.FAMILIES))
def test_prompts_join_and_prefill_as_they_do_unkept(loaded, tmp_path, family):
    vlm = loaded(family, dtype="float64")
    paths = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(paths):
        tiny.picture(seed=seed, size=(48, 64)).save(path)
    asked = AskedOnce(vlm)
    prompts = [asked.ask("how many cats", path) for path in paths]
    joined_inputs(asked, prompts[:1])  # what is kept of one meets what is made of the others
    first = prefill_all(asked, prompts[1:])
    seen = []
    hook = vlm.parts.decoder.register_forward_pre_hook(lambda *args: seen.append(1))
    again = prefill_all(asked, prompts[1:])
    hook.remove()
    assert not seen
    assert all(one is other for one, other in zip(first, again, strict=True))
    with torch.no_grad():
        ours, theirs = (
            vlm.parts.decoder(**joined_inputs(model, prompts), use_cache=False).last_hidden_state
            for model in (asked, vlm)
        )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    for one, prompt in zip(first, prompts[1:], strict=True):
        (alone,) = prefill_all(vlm, [prompt])
        for kept, expected in zip((*one.keys, *one.values), (*alone.keys, *alone.values), strict=True):
            torch.testing.assert_close(kept, expected, rtol=0, atol=1e-9)
