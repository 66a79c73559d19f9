"""Questions on files are encoded once, and no more of them are kept than may be."""

import tiny
import torch

from vfl.measure.asked_once import AskedOnce, _num_bytes


def test_a_file_is_encoded_once_and_a_picture_each_time(loaded, tmp_path):
    vlm = loaded("llava")
    paths = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(paths):
        tiny.picture(seed=seed).save(path)
    plain = vlm.ask("how many cats", paths[0])
    asked = AskedOnce(vlm, kept_bytes=2 * _num_bytes(plain))
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
