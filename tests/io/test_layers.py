"""Layers as a person writes them: one parser, whoever asks."""

import pytest
from pydantic import BaseModel, ValidationError

from vfl.errors import InputError
from vfl.io.fields import LayersByFunction
from vfl.io.layers import layer_list, parse_layers


class Own(BaseModel):
    layers: LayersByFunction


@pytest.mark.parametrize(
    ("written", "layers"),
    [
        ("10-12,20", [10, 11, 12, 20]),
        ("10–12, 20", [10, 11, 12, 20]),
        ("10 - 12", [10, 11, 12]),
        (["10-12", 20], [10, 11, 12, 20]),
        ((3, 4), [3, 4]),
        (7, [7]),
        ("4-5,2,2", [4, 5, 2, 2]),  # as written: who knows the model says what is wrong with it
    ],
)
def test_what_can_be_written(written, layers):
    assert parse_layers(written) == layers


def test_what_is_shown_is_read_back():
    for layers in ([0], [0, 1, 2], [3, 5, 6, 7, 20]):
        assert parse_layers(layer_list(layers)) == layers


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("12-10", "the span '12-10' runs backwards; write 10-12"),
        (["12-10"], "runs backwards"),
        ([], r"\[\] names no layer"),
        ("", "no list of layers"),
        ("3;4", "no list of layers"),
        ("-3", "no list of layers"),
        (True, "no list of layers"),
        ([1.5], "no list of layers"),
        (None, "no list of layers"),
    ],
)
def test_what_cannot_be_meant(written, message):
    with pytest.raises(InputError, match=message):
        parse_layers(written)
    with pytest.raises(ValidationError, match=message):
        Own(layers={"counting": written})


def test_layers_of_functions_are_ascending_and_named_once():
    assert Own(layers={"counting": "20,5-6", "ocr": [9, 8]}).layers == {"counting": [5, 6, 20], "ocr": [8, 9]}
    with pytest.raises(ValidationError, match="layer 5 is named more than once"):
        Own(layers={"counting": "5,4-6"})
