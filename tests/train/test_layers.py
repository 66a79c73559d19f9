"""The layers of an arm: where the set comes from, what each arm makes of it, and what is refused."""

import random

import pytest

from vfl.errors import InputError
from vfl.functionmap import FunctionEntry, FunctionMap, ModelId
from vfl.train.layers.choice import chosen_layers, read_choice
from vfl.train.layers.presets import PRESETS

QWEN_7B = ModelId(id="Qwen/Qwen2.5-VL-7B-Instruct", family="Qwen2.5-VL", num_layers=28)


def entry(layers, num_layers):
    curve = [0.0] * num_layers
    return FunctionEntry(
        layers=layers,
        peak=layers[0] if layers else None,
        distributed=False,
        pairs=10,
        kept=10,
        accuracy=1.0,
        changed=curve,
        followed_source=curve,
        ci_low=curve,
        ci_high=curve,
        control=None,
        logprob_effect=None,
    )


@pytest.fixture
def fmap():
    layers = {"counting": [11, 12], "ocr": [22], "grounding": []}
    return FunctionMap(model=QWEN_7B, functions={name: entry(chosen, 28) for name, chosen in layers.items()})


def layers_of(written, model=QWEN_7B, fmap=None):
    return chosen_layers(read_choice(written), model, fmap)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("full", list(range(28))),
        ({"arm": "full"}, list(range(28))),
        ("10-17,20-23", [*range(10, 18), *range(20, 24)]),
        ("3", [3]),
        (3, [3]),
        (["10-12", 14], [10, 11, 12, 14]),
        ("10–12, 14", [10, 11, 12, 14]),
        ([14, 10], [10, 14]),
        ({"list": "5-6"}, [5, 6]),
        ({"list": [5, 6], "arm": "reversed"}, [*range(5), *range(7, 28)]),
        ({"preset": "qwen2.5-vl-7b/10-23"}, list(range(10, 24))),
        ({"preset": "qwen2.5-vl-7b/10-17,20-23", "arm": "reversed"}, [*range(10), 18, 19, *range(24, 28)]),
    ],
)
def test_what_can_be_written(written, expected):
    assert layers_of(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"functions": ["counting"]}, [11, 12]),
        ({"functions": ["counting"], "expand": 2}, [9, 10, 11, 12, 13, 14]),
        ({"functions": ["counting", "ocr"]}, [11, 12, 22]),
        ({"functions": ["ocr"], "expand": 7}, [*range(15, 28)]),
        ({"functions": ["ocr"], "arm": "reversed"}, [*range(22), *range(23, 28)]),
        ({"functions": ["ocr"], "arm": "full"}, [*range(28)]),
    ],
)
def test_functions_of_a_map(fmap, written, expected):
    assert layers_of(written, fmap=fmap) == expected


def test_a_map_is_read_from_its_file(fmap, tmp_path):
    fmap.save(tmp_path / "map.json")
    for place in (tmp_path, tmp_path / "map.json"):
        assert layers_of({"functions": ["counting"], "map": str(place)}) == [11, 12]


def test_an_arm_and_its_reverse_are_all_layers_once(fmap):
    for written in ({"functions": ["counting"], "expand": 3}, {"list": [0, 27]}):
        both = layers_of(written, fmap=fmap) + layers_of(written | {"arm": "reversed"}, fmap=fmap)
        assert sorted(both) == list(range(28))


def test_random_layers_are_as_many_and_depend_on_the_seed_alone(fmap):
    written = {"functions": ["counting"], "expand": 2, "arm": "random"}
    random.seed(1)
    state = random.getstate()
    drawn = [layers_of(written | {"seed": seed}, fmap=fmap) for seed in range(30)]
    assert random.getstate() == state
    assert [layers_of(written | {"seed": seed}, fmap=fmap) for seed in range(30)] == drawn
    assert all(len(set(layers)) == 6 and layers == sorted(layers) for layers in drawn)
    assert len(set(map(tuple, drawn))) > 20
    assert {layer for layers in drawn for layer in layers} == set(range(28))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("20-30", r"names layer 28–30, but Qwen/Qwen2.5-VL-7B-Instruct has 28 decoder layers, 0 to 27"),
        ([-1, 3], r"names layer -1, but .* has 28 decoder layers"),
        ([3, 4, 3], r"names layer 3 more than once. .* has 28 decoder layers"),
        ("3-6,5", r"names layer 5 more than once. .* 28"),
        ([], r"names no layer. .* has 28 decoder layers"),
        ({"list": [40], "arm": "reversed"}, "28 decoder layers"),
        ({"list": [40], "arm": "random"}, "28 decoder layers"),
        ({"list": list(range(28)), "arm": "reversed"}, "the set holds all 28 layers"),
        ("6-3", "runs backwards; write 3-6"),
        ("all", "no list of layers; write it like 10-12,20, or full"),
        ("", "no list of layers"),
        ("3;4", "no list of layers"),
        ({"functions": ["counting"]}, "no map says which they are"),
        ({"map": "map.json"}, "needs a set of layers"),
        ({"arm": "reversed"}, "arm 'reversed' needs a set of layers"),
        ({}, "needs a set of layers"),
        ({"list": [1], "preset": "x"}, "preset and list both name layers"),
        ({"list": [1], "expand": 1}, "expand widens the functions' layers"),
        ({"functions": ["counting"], "expand": -1}, "layers.expand: .*greater than or equal to 0"),
        ({"functions": ["counting"], "arm": "half"}, "layers.arm: .*'function', 'full', 'reversed' or 'random'"),
        (
            {"function": ["counting"]},
            "unknown key 'layers.function', did you mean functions.*known: functions, map, .*list",
        ),
        ({"preset": "llava"}, "known ones are qwen2.5-vl-7b/10-23"),
        ({"list": True}, "no list of layers"),
        ([1.5], "layers"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_reason(written, message):
    with pytest.raises(InputError, match=message):
        layers_of(written)


def test_what_the_map_does_not_hold_is_refused(fmap):
    for written, message in (
        ({"functions": ["spelling"]}, "no function spelling"),
        ({"functions": ["grounding"]}, "No layers were found for grounding"),
    ):
        with pytest.raises(InputError, match=message):
            layers_of(written, fmap=fmap)


def test_a_map_of_another_model_is_refused_unless_allowed(fmap):
    derived = QWEN_7B.model_copy(update={"id": "me/tuned"})
    written = {"functions": ["ocr"]}
    with pytest.raises(InputError, match=r"located on Qwen/Qwen2.5-VL-7B-Instruct .* at hand is me/tuned"):
        layers_of(written, derived, fmap)
    assert layers_of(written | {"allow_other_model": True}, derived, fmap) == [22]
    with pytest.raises(InputError, match="Depths differ"):
        layers_of(written | {"allow_other_model": True}, derived.model_copy(update={"num_layers": 36}), fmap)


def test_presets_are_for_their_model_and_say_that_they_are_reconstructed():
    assert [len(preset.layers) for preset in PRESETS.values()] == [14, 12]
    assert all("reconstructed" in preset.source for preset in PRESETS.values())
    other = ModelId(id="Qwen/Qwen2-VL-7B-Instruct", family="Qwen2-VL", num_layers=28)
    for model in (other, QWEN_7B.model_copy(update={"num_layers": 36})):
        with pytest.raises(InputError, match=r"is for Qwen2.5-VL with 28 layers"):
            layers_of({"preset": "qwen2.5-vl-7b/10-23"}, model)
