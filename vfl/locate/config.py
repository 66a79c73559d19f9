"""Settings of `vfl locate`: a YAML recipe, overridden by flags, saved beside the results."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from vfl.engine.row_start import Reading
from vfl.io.fields import LayersByFunction, SomeNames
from vfl.loading.config import ModelConfig
from vfl.locate.layer_rule import ChoiceConfig

Mode = Literal["auto", "single", "window", "suffix"]


class LocateConfig(ModelConfig):
    """Settings of a localisation run."""

    out: Path = Field(description="folder for map.json, report.html, curves.png and pairs.parquet")
    probes: str | None = Field(
        default=None, description="folder of a suite, or a generated style: standard, micro (the embedded model's)"
    )
    functions: SomeNames | None = Field(default=None, description="all of a suite, or the paper's four, if None")
    pairs: int = Field(default=100, ge=1, description="generated pairs a function")
    group: int | None = Field(
        default=None, ge=2, description="generate groups of so many images of one scene, and all ordered pairs of each"
    )
    size: int | None = Field(default=None, ge=16, description="pixels of generated images")
    seed: int = Field(default=0, ge=0)
    mode: Mode = Field(
        default="auto",
        description="single layers; with windows of 2 and 3; with prefixes and suffixes; auto: what a function needs",
    )
    unfiltered: bool = Field(
        default=False, description="sweep pairs that aren't kept too, for the map's unfiltered curve"
    )
    screen: bool = Field(
        default=False,
        description="skip layers that gradients on a function's first pairs estimate to do next to nothing",
    )
    random_weights: bool = Field(
        default=False, description="sweep the pairs with weights drawn anew, too: a rule that is right names no layer"
    )
    off_manifold: bool = Field(
        default=False, description="measure how far swapped states lie from ordinary ones; some more passes"
    )
    reading: Reading = "text"
    layers: LayersByFunction = Field(
        default_factory=dict, description="your own layers for functions: {counting: 10-12,20}"
    )
    max_new_tokens: int | None = Field(default=None, ge=1)
    choice: ChoiceConfig = ChoiceConfig()
    part_pairs: int = Field(default=10, ge=1, description="pairs after which a process saves its results")

    @model_validator(mode="after")
    def _can_be_screened(self) -> Self:
        if self.screen and self.reading != "text":
            raise ValueError(f"screen estimates what text reads; it can't be used with reading: {self.reading}")
        if self.screen and self.mode == "suffix":
            raise ValueError("screen skips single layers and windows; it can't be used with mode: suffix")
        return self
