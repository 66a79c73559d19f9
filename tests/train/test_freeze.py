"""Lower layers that are trained in the first steps alone."""

import json
import shutil

import pytest
import torch
import trained
import yaml
from safetensors.torch import load_file

from vfl.errors import InputError
from vfl.train.layers.freeze import FreezeConfig, Freezing, check_freezing
from vfl.train.layers.learning_rates import parameter_groups
from vfl.train.recipe import read_recipe
from vfl.train.run import train

KINDS = ("image", "text", "turns", "image", "images", "image", "text", "image")
STEPS = {"max_steps": 4, "save_steps": 1, "save_total_limit": 4}
FREEZE = {"below": 0.6, "after": 0.5}  # layer 2 in the first two steps, layer 3 in all four


@pytest.fixture(scope="module")
def frozen(qwen, data_of, run, tmp_path_factory):
    """The folder of a run that freezes layer 2 after two of its four steps."""
    out = tmp_path_factory.mktemp("frozen") / "run"
    run(qwen, data_of(*KINDS), out, trainer=STEPS, freeze=FREEZE)
    return out


def adapter_after(out, step, layer):
    """The weights of a layer's adapter in the checkpoint of a step."""
    state = torch.load(out / f"checkpoints/checkpoint-{step}/optimizer.pt", weights_only=True)
    assert len(state["param_groups"]) == 2
    tensors = load_file(out / f"checkpoints/checkpoint-{step}/adapter_model.safetensors")
    return {name: tensor for name, tensor in tensors.items() if f".layers.{layer}." in name}


def test_the_lower_layer_stays_as_it_is_and_the_upper_one_goes_on(frozen):
    assert not trained.same(adapter_after(frozen, 1, 2), adapter_after(frozen, 2, 2))
    lower = adapter_after(frozen, 2, 2)
    assert lower
    assert trained.same(lower, adapter_after(frozen, 3, 2))
    assert trained.same(lower, adapter_after(frozen, 4, 2))
    assert not trained.same(adapter_after(frozen, 3, 3), adapter_after(frozen, 4, 3))


def test_it_differs_from_a_run_that_freezes_nothing_only_from_then_on(frozen, qwen, data_of, run, tmp_path):
    run(qwen, data_of(*KINDS), tmp_path / "run", trainer=STEPS)
    plain, some = trained.losses(tmp_path / "run"), trained.losses(frozen)
    assert plain[:3] == some[:3], "the third loss is that of weights which the third step has not changed yet"
    assert plain[3] != some[3]


def test_checkpointing_changes_nothing(frozen, qwen, data_of, run, tmp_path):
    run(qwen, data_of(*KINDS), tmp_path / "run", trainer=STEPS, freeze=FREEZE, checkpointing="on")
    assert trained.difference(trained.weights(frozen), trained.weights(tmp_path / "run")) < trained.ROUNDING


@pytest.mark.parametrize("step", [1, 3])
def test_resumed_before_and_after_the_freeze_it_ends_the_same(frozen, tmp_path, step):
    out = tmp_path / "run"
    shutil.copytree(frozen, out)
    for later in range(step + 1, 5):
        shutil.rmtree(out / f"checkpoints/checkpoint-{later}")
    (out / "report.html").unlink()
    recipe = yaml.safe_load((out / "settings.yaml").read_text()) | {"out": str(out)}
    train(recipe, resume=True, progress=False)
    assert trained.same(trained.weights(out), trained.weights(frozen))


def test_preflight_and_card_say_it(frozen):
    sentence = "layers 2 after step 2: from then on the backward pass ends at layer 3"
    assert json.loads((frozen / "preflight.json").read_text())["arm"]["frozen"] == sentence
    assert sentence in (frozen / "adapter/README.md").read_text()


def test_no_graph_is_built_below_and_the_weights_are_trainable_again():
    layers = torch.nn.ModuleList(torch.nn.Linear(3, 3) for _ in range(4))
    model = torch.nn.ModuleDict({"model": torch.nn.ModuleDict({"layers": layers})})
    seen = []
    layers[1].register_forward_hook(lambda module, args, output: seen.append(output.requires_grad))
    freezing = Freezing.of(FreezeConfig(below=0.5, after=0.5), 4, 10)
    optimizer = torch.optim.AdamW(parameter_groups(model, {}, 1.0, 0.0, below=freezing.layer))

    def passed(step):
        model.zero_grad()
        with freezing.at(step, model, optimizer):
            states = torch.ones(1, 3)
            for layer in layers:
                states = layer(states)
            states.sum().backward()
        return [layer.weight.grad is not None for layer in layers]

    assert passed(4) == [True] * 4
    assert passed(5) == [False, False, True, True]
    assert seen == [True, False]
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 0.0]
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(("layers", "said"), [([2, 3], "none of them"), ([0, 1], "all of them")])
def test_with_nothing_to_freeze_or_to_train_it_is_refused(layers, said):
    with pytest.raises(InputError, match=rf"freeze.below 0.5 means the layers below 2 of 4, and that is {said}"):
        check_freezing(FreezeConfig(), layers, 4)


def test_it_needs_a_backward_pass_that_ends_in_the_decoder(tmp_path):
    recipe = trained.settings(tmp_path, tmp_path / "rows.jsonl", tmp_path / "run", freeze={}, also_adapt=["vision"])
    with pytest.raises(InputError, match="freeze ends the backward pass above the lower layers"):
        read_recipe(recipe)
