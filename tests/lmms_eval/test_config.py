"""The words of --model_args: as lmms-eval hands them over, and what is said of wrong ones."""

import pytest

from vfl.engine.skip.skip import Skip
from vfl.errors import InputError
from vfl.functionmap import FunctionEntry, FunctionMap
from vfl.lmms_eval.config import read_arguments
from vfl.lmms_eval.layers import LayerPlan, plan_of
from vfl.loading.config import identify


@pytest.fixture(scope="module")
def vlm(loaded):
    return loaded(None)


def entry(layers, num_layers):
    flat = [0.0] * num_layers
    facts = {"changed": flat, "followed_source": flat, "ci_low": flat, "ci_high": flat, "accuracy": 1.0}
    none = {"logprob_effect": None, "control": None, "distributed": False}
    return FunctionEntry(layers=layers, peak=layers[0], pairs=1, kept=1, **facts, **none)


@pytest.fixture
def own_map(tmp_path):
    """own_map(vlm) -> the folder of a map of this model, with layers for two functions."""

    def folder(vlm):
        functions = {"counting": entry([1], vlm.num_layers), "ocr": entry([0], vlm.num_layers)}
        FunctionMap(model=identify(vlm), functions=functions).save(tmp_path / "map.json")
        return tmp_path

    return folder


@pytest.mark.parametrize(
    ("arguments", "plan"),
    [
        ({}, LayerPlan()),
        ({"hide": 5}, LayerPlan((5,))),  # lmms-eval makes numbers of digits
        ({"hide": "5-7"}, LayerPlan((5, 6, 7))),
        ({"hide": "[5-6,9]"}, LayerPlan((5, 6, 9))),  # and cuts at commas outside of brackets and quotes
        ({"hide": "'5-6,9'"}, LayerPlan((5, 6, 9))),
        ({"hide": "all"}, LayerPlan(tuple(range(10)))),
        ({"drop": 3}, LayerPlan((7, 8, 9))),
        ({"drop": 0}, LayerPlan()),
        ({"entry": 2, "exit": 8}, LayerPlan(skip=Skip(10, 2, 8))),
        ({"exit": 8}, LayerPlan(skip=Skip(10, 0, 8))),
        ({"batch_size": "4", "max_batch_size": 8, "device": "cpu"}, LayerPlan()),  # from flags of its own
    ],
)
def test_a_plan_is_written_in_the_words_of_the_commands(vlm, arguments, plan):
    assert plan_of(read_arguments(arguments), vlm) == plan


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hid": 5}, "hid.*did you mean hide"),
        ({"hide": "five"}, "'five' is no list of layers"),
        ({"hide": "5,5"}, "named more than once"),
        ({"hide": 5, "drop": 2}, "hide and drop are plans, of which one is run at a time"),
        ({"exit": 5, "keep": "ocr", "map": "m"}, "entry and exit and keep are plans"),
        ({"functions": "counting"}, "map belongs to functions or keep"),
        ({"map": "runs/map"}, "map belongs to functions or keep"),
        ({"batch_size": "auto"}, "batch_size"),
    ],
)
def test_a_wrong_word_is_an_error_that_names_it(arguments, message):
    with pytest.raises(InputError, match=message):
        read_arguments(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hide": 10}, "hide names 10; the model has 10 layers: 0 to 9"),
        ({"drop": 11}, "drop is 11, a number of last layers; the model has 10"),
        ({"exit": 11}, "the model has 10 layers"),
        ({"entry": 6, "exit": 4}, "0 <= entry <= exit"),
    ],
)
def test_layers_that_the_model_does_not_have_are_an_error(vlm, arguments, message):
    with pytest.raises(InputError, match=message):
        plan_of(read_arguments(arguments), vlm)


def test_a_model_whose_vision_states_see_the_question_can_hide_but_not_skip(loaded):
    vlm = loaded("paligemma")
    assert not vlm.shares_prefix
    with pytest.raises(InputError, match=r"can't skip layers: its vision states see the question.*Give hide or drop"):
        plan_of(read_arguments({"exit": 1}), vlm)
    assert plan_of(read_arguments({"drop": 1}), vlm).hidden


def test_a_map_says_whose_layers_are_hidden_or_kept(vlm, own_map):
    folder = own_map(vlm)
    assert plan_of(read_arguments({"map": str(folder), "functions": "counting"}), vlm) == LayerPlan((1,))
    assert plan_of(read_arguments({"map": str(folder), "functions": "[counting,ocr]"}), vlm) == LayerPlan((0, 1))
    kept = plan_of(read_arguments({"map": str(folder), "keep": "counting"}), vlm)
    assert kept == LayerPlan(skip=Skip(10, 0, 10, frozenset({0})))
    assert kept.words == "vision tokens run at layers 0–9 and are read at 1–9"
    with pytest.raises(InputError, match="grounding"):
        plan_of(read_arguments({"map": str(folder), "functions": "grounding"}), vlm)


def test_a_map_of_another_model_is_an_error(vlm, loaded, own_map):
    folder = own_map(loaded("llava"))
    with pytest.raises(InputError, match="llava"):
        plan_of(read_arguments({"map": str(folder), "functions": "counting"}), vlm)
