"""Settings of `vfl negatives`: a YAML file, overridden by flags, saved with the results."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from vfl.data import Kind
from vfl.evaluate.right_answers import DataMatch
from vfl.io.fields import Names, OnBadRow, Paths, SomeNames, layers_each_once
from vfl.loading.config import ModelConfig

RANDOM = re.compile(r"random:(\d+)")
WORDS = ("all", "none")


def layers_or_words(value: Any) -> Any:
    """ "10-12,20" or a list as ascending layers; "all", "none" and "random:3" stay as they are.

    Raises:
        InputError: as `layers_each_once`.
    """
    if value is None or (isinstance(value, str) and (value in WORDS or RANDOM.fullmatch(value))):
        return value
    if isinstance(value, list | tuple) and not value:
        return "none"
    return layers_each_once(value)


class NegativesConfig(ModelConfig):
    """Which rows to ask, and at which layers the model is blind."""

    data: Annotated[Paths, Field(min_length=1)] = Field(description="files, folders of shards or saved datasets")
    images: Path | None = Field(default=None, description="folder of the images that the data's rows name")
    format: Kind | Literal["auto"] = "auto"
    image_column: SomeNames | None = Field(
        default=None, description="column, or columns in order, with the images; default: images or image"
    )
    allow_remote: bool = Field(default=False, description="fetch images whose names are addresses")
    first: int | None = Field(default=None, ge=1, description="only so many rows")
    on_bad_row: OnBadRow = "error"
    out: Path = Field(description="folder for the preference rows")
    map: Path | None = Field(default=None, description="map.json of `vfl locate`, or the folder that holds it")
    functions: Names = Field(default=(), description="with a map: whose reading layers are blind")
    blind: Annotated[list[int] | str | None, BeforeValidator(layers_or_words)] = Field(
        default=None,
        description="layers, instead of a map: such as 10-12,20, all, random:3 (drawn with seed), or none: the plain"
        " model's own wrong answers",
    )
    seed: int = Field(default=0, ge=0, description="of blind: random:N")
    allow_other_model: bool = Field(default=False, description="the map's model was fine-tuned into this one")
    match: DataMatch = Field(
        default="auto", description="how answers are compared: a row whose blind answer is the same is left out"
    )
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="most tokens of an answer; default: by the right answer's kind and length"
    )
    only_answered: bool = Field(
        default=False, description="keep only rows that the model answers correctly when it sees the image"
    )
    batch_size: int = Field(default=16, ge=1)

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if (self.map is None) == (self.blind is None):
            raise ValueError("say where the model is blind: either map with functions, or blind")
        if (self.map is None) != (not self.functions):
            raise ValueError("map and functions belong together: whose layers are blind")
        if self.only_answered and self.blind == "none":
            raise ValueError(
                "blind: none takes the plain model's wrong answers, and only_answered the rows that it answers"
                " rightly: no row is both; leave one out"
            )
        return self
