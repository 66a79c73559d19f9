"""Which layers are ablated: the map's, if it is this model's, and the user's own."""

import logging
from pathlib import Path

import pytest

from vfl.errors import InputError
from vfl.functionmap import FunctionMap
from vfl.select.score.ablations import ablations_of, sharing_layers
from vfl.select.settings import ScoreConfig

MAP = Path(__file__).parents[2] / "recipes" / "micro" / "map.json"


@pytest.fixture
def fmap():
    return FunctionMap.load(MAP)


def settings(**given):
    return ScoreConfig(data="d.json", out="scores", **given)


def test_the_map_s_functions_and_layers_in_its_order(fmap):
    found = ablations_of(settings(), fmap, fmap.model)
    assert list(found) == list(fmap.functions)
    assert found["counting"] == fmap.functions["counting"].layers
    assert list(ablations_of(settings(functions="ocr,counting"), fmap, fmap.model)) == ["ocr", "counting"]


def test_own_layers_replace_the_map_s_and_stand_beside_them(fmap):
    found = ablations_of(settings(layers={"counting": "2-4", "colour": [9, 1]}), fmap, fmap.model)
    assert found["counting"] == [2, 3, 4]
    assert found["colour"] == [1, 9]
    assert set(found) == {*fmap.functions, "colour"}
    assert ablations_of(settings(layers={"colour": [1]}), None, fmap.model) == {"colour": [1]}


def test_a_function_without_layers_is_left_out_with_a_warning(fmap, caplog):
    empty = fmap.functions["ocr"].model_copy(update={"layers": []})
    fmap = fmap.model_copy(update={"functions": fmap.functions | {"ocr": empty}})
    with caplog.at_level(logging.WARNING):
        assert "ocr" not in ablations_of(settings(), fmap, fmap.model)
    assert "no layers for ocr" in caplog.text


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"functions": "taste"}, "no function taste"),
        ({"layers": {"ocr": [99]}}, "layer 99"),
        ({"layers": {"blind": [1]}}, "blind"),
        ({"layers": {'o"cr': [1]}}, "Rename"),
    ],
)
def test_what_cannot_be_ablated(fmap, given, told):
    with pytest.raises(InputError, match=told):
        ablations_of(settings(**given), fmap, fmap.model)


def test_another_model_s_map_is_refused_unless_allowed(fmap):
    other = fmap.model.model_copy(update={"id": "owner/other", "weights_sha256": "ff" * 32})
    with pytest.raises(InputError, match="owner/other"):
        ablations_of(settings(), fmap, other)
    assert ablations_of(settings(allow_other_model=True), fmap, other)
    with pytest.raises(InputError, match="Depths differ"):
        ablations_of(settings(allow_other_model=True), fmap, other.model_copy(update={"num_layers": 4}))


def test_nothing_to_ablate_says_what_to_give(fmap):
    with pytest.raises(InputError, match="--map"):
        ablations_of(settings(), None, fmap.model)
    with pytest.raises(InputError, match="ocr"):
        ablations_of(settings(functions="ocr"), None, fmap.model)


def test_functions_with_the_same_layers_are_scored_as_one(caplog):
    """A pretrained decoder may read two functions in one layer: two columns of the same numbers would tell nothing."""
    layers = {"counting": [26], "grounding": [23], "colour": [2, 3], "ocr": [23]}
    with caplog.at_level(logging.WARNING):
        together = sharing_layers(layers)
    assert together == {"counting": ["counting"], "grounding and ocr": ["grounding", "ocr"], "colour": ["colour"]}
    assert "grounding, ocr have the same layers (23)" in caplog.text
    caplog.clear()
    assert list(sharing_layers({"a": [1], "b": [1, 2]})) == ["a", "b"]
    assert not caplog.text
