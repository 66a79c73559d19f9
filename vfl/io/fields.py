"""Kinds of settings that mean the same in every command, as pydantic reads them from YAML, a flag or Python."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from vfl.errors import InputError
from vfl.io.layers import parse_layers


def split(value: Any) -> Any:
    """ "counting, ocr" -> ["counting", "ocr"]; what is a list already stays as it is."""
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


def several(value: Any) -> Any:
    """One path, or what is said of one, as a list of one. A file's name may have a comma: a text is never cut here."""
    return [value] if isinstance(value, str | Path | Mapping) else value


def switch(value: Any) -> Any:
    """YAML reads the words on and off as booleans; a setting that has them among others takes both."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return value


def layers_each_once(value: Any) -> Any:
    """ "10-12,14" or a list -> ascending layers.

    Raises:
        InputError: as `parse_layers`, or for a layer that is named more than once.
    """
    layers = parse_layers(value)
    if twice := sorted({layer for layer in layers if layers.count(layer) > 1}):
        raise InputError(f"layer {', '.join(map(str, twice))} is named more than once; name each once")
    return sorted(layers)


def layers_by_function(value: Any) -> Any:
    """{"counting": "5-6"} -> {"counting": [5, 6]}."""
    if not isinstance(value, Mapping):
        return value
    layers = {}
    for name, written in value.items():
        try:
            layers[name] = layers_each_once(written)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
    return layers


Names = Annotated[tuple[str, ...], BeforeValidator(split)]
"""Names, written `a,b` or `[a, b]`."""
SomeNames = Annotated[tuple[str, ...], BeforeValidator(split), Field(min_length=1)]
"""As `Names`; an empty list is an error, for where leaving the setting out means all of them."""
Paths = Annotated[tuple[Path, ...], BeforeValidator(several)]
"""Paths, or one alone."""
LayersByFunction = Annotated[dict[str, list[int]], BeforeValidator(layers_by_function)]
"""A user's own layers for functions: `{counting: 10-12,20}` or `{counting: [10, 11]}`."""
SystemPrompt = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]
"""A system turn's text."""
OnBadRow = Literal["error", "skip"]
"""What is done about a row that can't be used: stop there, or leave it out and say so."""
MinPixels = Annotated[
    int | None, Field(ge=1, description="pictures of fewer pixels are enlarged; default: as the model's processor says")
]
MaxPixels = Annotated[
    int | None,
    Field(
        ge=1,
        description="pictures of more pixels are made smaller, for fewer vision tokens; default: as the model's"
        " processor says; for families that count pixels, such as Qwen2.5-VL",
    ),
]
"""Limits of resized pictures, see `vfl.models.pixel_limits`."""

QUANTIZED = ("load_in_", "llm_int8_", "bnb_4bit_")


def _fields_of_quantization(value: Any) -> Any:
    """A check that needs no Transformers: what it lets pass is checked when the model is loaded."""
    if isinstance(value, Mapping) and (wrong := [str(key) for key in value if not str(key).startswith(QUANTIZED)]):
        raise ValueError(f"{', '.join(wrong)}: fields of BitsAndBytesConfig begin with {', '.join(QUANTIZED)}")
    return value


Quantize = Annotated[
    Literal["4bit", "8bit"] | dict[str, Any] | None,
    BeforeValidator(_fields_of_quantization),
    Field(description="4bit: NF4 with double quantization; 8bit; or fields of Transformers' BitsAndBytesConfig"),
]
"""Of the decoder layers' matrices."""
