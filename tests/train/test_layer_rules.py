"""Layers by rule: what may be written, how many come out, and what a run leaves of its choice."""

import json
from itertools import pairwise

import pytest
import torch
import trained

from vfl.engine.operations import relative_step
from vfl.errors import InputError
from vfl.functionmap import ModelId
from vfl.train.adapter.lora import build_lora
from vfl.train.adapter.towers import layer_of, tower_of
from vfl.train.assemble import assemble
from vfl.train.choose_layers import LAYERS
from vfl.train.layers.choice import chosen_layers, read_choice
from vfl.train.layers.learning_rates import parameter_groups
from vfl.train.layers.rules import drawn, evenly_spaced, highest, shares
from vfl.train.layers.shift import shift_of
from vfl.train.layers.thin import thinned
from vfl.train.recipe import Recipe

MODEL = ModelId(id="m", family="f", num_layers=10)
SCORES = (0.3, 0.1, 0.5, 0.5, 0.0, 0.2, 0.9, 0.1, 0.1, 0.4)


def test_highest_takes_the_best_and_never_what_is_barred():
    assert highest(SCORES, 3) == [2, 3, 6]
    assert highest(SCORES, 2) == [2, 6], "of equals the lower"
    assert highest(SCORES, 3, barred=[6, 2]) == [0, 3, 9]
    assert highest(SCORES, 10) == list(range(10))
    assert highest(SCORES, 4, barred=range(8)) == [8, 9]


@pytest.mark.parametrize("count", range(1, 11))
def test_every_rule_gives_its_count(count):
    for layers in (highest(SCORES, count), evenly_spaced(count, 10), drawn(count, 10, seed=3)):
        assert len(set(layers)) == count
        assert layers == sorted(layers)
        assert set(layers) <= set(range(10))
    assert evenly_spaced(count, 10)[0] == 0
    gaps = {after - before for before, after in pairwise(evenly_spaced(count, 10))}
    assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("count", [0, 11])
def test_a_count_that_the_model_lacks_is_refused(count):
    for rule in (lambda: highest(SCORES, count), lambda: evenly_spaced(count, 10), lambda: drawn(count, 10, 0)):
        with pytest.raises(InputError, match="1 to 10"):
            rule()


def test_shares_of_nothing_are_equal():
    assert shares([0.0, 0.0]) == [0.5, 0.5]
    assert sum(shares(SCORES)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("written", "same"),
    [
        ({"rule": "full"}, "full"),
        ({"rule": "list", "list": "3-4"}, [3, 4]),
        ({"rule": "reversed", "list": [3, 4]}, {"list": [3, 4], "arm": "reversed"}),
        ({"rule": "random", "list": [3, 4], "seed": 2}, {"list": [3, 4], "arm": "random", "seed": 2}),
        ({"rule": "random", "count": 2, "seed": 2}, {"list": [3, 4], "arm": "random", "seed": 2}),
        ({"rule": "uniform", "count": 5}, [0, 2, 4, 6, 8]),
        ({"rule": "uniform", "share": 0.5}, [0, 2, 4, 6, 8]),
        ({"rule": "uniform"}, [0, 2, 4, 6, 8]),
    ],
)
def test_a_rule_may_name_an_arm(written, same):
    assert chosen_layers(read_choice(written), MODEL) == chosen_layers(read_choice(same), MODEL)


def test_auto_trains_all_layers_at_a_part_of_the_rank():
    assert read_choice("auto") == read_choice({"rule": "auto"})
    assert chosen_layers(read_choice("auto"), MODEL) == chosen_layers(read_choice("full"), MODEL)
    assert thinned({"r": 16}, 64, None) == {"r": 5, "lora_alpha": 16}
    assert thinned({"r": 16, "lora_alpha": 32}, 64, 0.5) == {"r": 8, "lora_alpha": 32}
    assert thinned({"use_dora": True}, 64, None) == {"use_dora": True, "r": 19, "lora_alpha": 64}
    assert thinned({"r": 16, "use_rslora": True}, 64, 0.25) == {"r": 4, "use_rslora": True, "lora_alpha": 32}
    assert thinned({"r": 1}, 64, None)["r"] == 1
    for wrong in ({"rule": "auto", "count": 2}, {"rule": "auto", "functions": ["ocr"], "map": "map.json"}):
        with pytest.raises(InputError, match="takes share alone"):
            read_choice(wrong)


def test_data_rules_wait_for_the_rows():
    assert not read_choice("auto").by_data
    assert read_choice({"rule": "gradient", "count": 3, "modules": "attention"}).by_data
    assert not read_choice({"rule": "uniform"}).by_data


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"rule": "gradient", "count": 3, "share": 0.2}, "count and share both"),
        ({"rule": "gradient", "arm": "reversed"}, "chooses the layers"),
        ({"rule": "gradient", "list": [1]}, "leave the list"),
        ({"rule": "gradient", "expand": 1}, "takes count or share"),
        ({"rule": "gradient", "functions": ["ocr"]}, "both or neither"),
        ({"rule": "list"}, "needs the layers"),
        ({"rule": "full", "arm": "random"}, "contradict"),
        ({"rule": "best"}, "rule"),
        ({"list": [1, 2], "count": 2}, "leave them out"),
        ({"rule": "gradient", "count": 0}, "count"),
        ({"rule": "gradient", "share": 1.5}, "share"),
    ],
)
def test_what_cannot_be_meant(written, said):
    with pytest.raises(InputError, match=said):
        read_choice(written)


def recipe_of(model, rows, out, **changed):
    return Recipe.model_validate(trained.settings(model, rows, out, **changed))


KINDS = ("image", "text", "turns", "images", "image")
DEPTH = 5  # layers of the tiny model


@pytest.mark.parametrize("rule", ["gradient", "fisher", "similarity", "warmup"])
def test_a_run_trains_what_its_rule_chose_and_keeps_the_scores(rule, qwen, data_of, tmp_path):
    recipe = recipe_of(qwen, data_of(*KINDS), tmp_path, layers={"rule": rule, "count": 2, "modules": "attention"})
    parts = assemble(recipe, progress=False)
    kept = json.loads((tmp_path / LAYERS).read_text())
    assert kept["layers"] == highest(kept["scores"][rule], 2) == parts.layers
    assert all(len(scores) == DEPTH for scores in kept["scores"].values())
    names = [name for name, weight in parts.peft_model.named_parameters() if weight.requires_grad]
    assert {int(name.split(".layers.")[1].split(".")[0]) for name in names} == set(parts.layers)
    assert all("attn" in name for name in names)
    assert "Layers" in kept["reason"]
    assert parts.decision.layers == assemble(recipe, progress=False).decision.layers


def test_a_choice_is_made_once(qwen, data_of, tmp_path, monkeypatch):
    settings = {"layers": {"rule": "gradient", "count": 1}}
    first = assemble(recipe_of(qwen, data_of(*KINDS), tmp_path, **settings), progress=False).decision
    monkeypatch.setattr("vfl.train.choose_layers.score_layers", lambda *args: pytest.fail("scored again"))
    assert assemble(recipe_of(qwen, data_of(*KINDS), tmp_path, **settings), progress=False).decision == first


def test_modules_are_named_once(qwen, data_of, tmp_path):
    layers = {"list": [1], "modules": "mlp"}
    with pytest.raises(InputError, match="Keep one"):
        assemble(recipe_of(qwen, data_of("image"), tmp_path, layers=layers, lora={"target_modules": ["q_proj"]}))


def test_equal_parameters_by_rank(qwen):
    """A rule's layers and full LoRA can be made equal in parameters."""
    import vfl

    model = vfl.load(qwen, device="cpu").model
    assert build_lora(model, [2], {"r": 8}, match_rank=True).r == DEPTH * 8


def test_protected_layers_are_not_trained(qwen, data_of, tmp_path):
    protect = {"functions": ["counting"], "map": str(trained.map_of(qwen, tmp_path))}
    parts = assemble(recipe_of(qwen, data_of("image"), tmp_path / "run", layers="full", protect=protect))
    assert parts.layers == [0, 1]
    ruled = {"rule": "gradient", "count": 2}
    assert assemble(recipe_of(qwen, data_of("image"), tmp_path / "two", layers=ruled, protect=protect)).layers == [0, 1]
    with pytest.raises(InputError, match="protect spares layers 2–4"):
        assemble(recipe_of(qwen, data_of("image"), tmp_path / "none", layers=[2, 3], protect=protect))


def test_protected_layers_are_trained_slower(qwen, data_of, tmp_path):
    protect = {"functions": "counting", "map": str(trained.map_of(qwen, tmp_path)), "how": "scale", "scale": 0.25}
    parts = assemble(recipe_of(qwen, data_of("image"), tmp_path / "run", layers="full", protect=protect))
    trainer = parts.trainer
    rate = trainer.args.learning_rate
    names = {id(weight): name for name, weight in parts.peft_model.named_parameters()}
    for group in trainer.create_optimizer().param_groups:
        slow = {int(names[id(weight)].split(".layers.")[1][0]) >= 2 for weight in group["params"]}
        assert slow == {group["lr"] == pytest.approx(0.25 * rate)}
        assert group["lr"] in (rate, pytest.approx(0.25 * rate))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava"])
def test_towers_learn_at_their_own_rate_and_protection_is_of_decoder_layers(family, tiny_folder, data_of, tmp_path):
    model = tiny_folder(family)
    protect = {"functions": "counting", "map": str(trained.map_of(model, tmp_path)), "how": "scale", "scale": 0.25}
    recipe = recipe_of(
        model, data_of("image"), tmp_path / "run", layers="full", protect=protect,
        also_adapt=["vision", "projector"], learning_rates={"vision": 1e-5},
    )  # fmt: skip
    parts = assemble(recipe)
    rate = parts.trainer.args.learning_rate
    names = {id(weight): name for name, weight in parts.peft_model.named_parameters()}
    rates = {}
    for group in parts.trainer.create_optimizer().param_groups:
        rates |= {names[id(weight)].removeprefix("base_model.model."): group["lr"] for weight in group["params"]}
    towers = tower_of(parts.vlm.model, list(rates), parts=parts.vlm.parts)
    protected = {name for name in rates if (layer_of(parts.vlm.parts, name) or 0) >= 2}
    assert set(towers.values()) == {"language", "vision", "projector"}
    for name, tower in towers.items():
        expected = 1e-5 if tower == "vision" else 0.25 * rate if name in protected else rate
        assert rates[name] == pytest.approx(expected), name


def test_a_rate_of_what_is_not_adapted_is_refused(qwen, data_of, tmp_path):
    with pytest.raises(ValueError, match=r"add also_adapt: \[projector\]"):
        recipe_of(qwen, data_of("image"), tmp_path, also_adapt=["vision"], learning_rates={"projector": 1e-4})


def test_groups_hold_every_trained_weight_once():
    layers = torch.nn.ModuleList([torch.nn.Linear(2, 2) for _ in range(3)])
    model = torch.nn.ModuleDict({"decoder": torch.nn.ModuleDict({"layers": layers})})
    slower = {f"decoder.layers.1.{name}": 0.05 for name in ("weight", "bias")}
    groups = parameter_groups(model, slower, 0.1, 0.0)
    assert sorted((len(group["params"]), group["lr"]) for group in groups) == [(2, 0.05), (4, 0.1)]


def test_trained_and_protected_at_once_is_refused(qwen, data_of, tmp_path):
    path = str(trained.map_of(qwen, tmp_path))
    layers = {"functions": ["ocr"], "map": path}
    protect = {"functions": ["ocr"], "map": path}
    with pytest.raises(InputError, match="Protect the other functions"):
        assemble(recipe_of(qwen, data_of("image"), tmp_path / "run", layers=layers, protect=protect))


def test_the_shift_is_where_the_gradient_is_densest():
    reading = [4, 5]
    for low, high, part in ((0, 4, "below"), (4, 6, "at"), (6, 10, "above")):
        gradient = [1.0 if low <= layer < high else 0.1 for layer in range(10)]
        shift = shift_of(gradient, reading, ["counting"])
        assert shift.densest == part
        assert shift.below + shift.at + shift.above == pytest.approx(1)


def test_the_lowest_layer_decides_the_cost():
    assert relative_step([0, 9], 10) == relative_step(range(10), 10) == 1
    assert relative_step([9], 10) == pytest.approx(0.55)
    assert relative_step([5, 7], 10) == pytest.approx(0.75)
    assert relative_step([5], 10, checkpointing=True) == pytest.approx(2 / 3)
