"""Settings of `vfl locate`: a YAML recipe, overridden by flags, saved beside the results."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from vfl.engine.sweep import Reading
from vfl.locate.layer_rule import ChoiceConfig

Mode = Literal["auto", "single", "window", "suffix"]
MAIN_FUNCTIONS = ("recognition", "counting", "grounding", "ocr")


class ModelConfig(BaseModel):
    """Which model, and how it is loaded (the arguments of `vfl.load`)."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str | None = Field(default=None, description="folder or hub id; the embedded test model when left out")
    revision: str | None = None
    dtype: Literal["auto", "float32", "float16", "bfloat16", "float64"] = "auto"
    device: str | None = None
    device_map: str | None = None
    quantize: Literal["4bit", "8bit"] | None = None
    attention: Literal["sdpa", "eager"] = "sdpa"
    chat_template: Path | None = Field(default=None, description="file with a chat template that replaces the model's")
    trust_remote_code: bool = False


class LocateConfig(ModelConfig):
    """Settings of a localisation run."""

    out: Path = Field(description="folder for map.json, report.html, curves.png and pairs.parquet")
    probes: str | None = Field(
        default=None, description="folder of a suite, or a generated style: standard, micro (the embedded model's)"
    )
    functions: tuple[str, ...] | None = Field(default=None, description="all of a suite, or the paper's four, if None")
    pairs: int = Field(default=100, ge=1, description="generated pairs a function")
    size: int | None = Field(default=None, ge=16, description="pixels of generated images")
    seed: int = Field(default=0, ge=0)
    mode: Mode = Field(
        default="auto",
        description="single layers; with windows of 2 and 3; with prefixes and suffixes; auto: what a function needs",
    )
    reading: Reading = "text"
    layers: dict[str, list[int]] = Field(default_factory=dict, description="a user's own layers per function")
    max_new_tokens: int | None = Field(default=None, ge=1)
    choice: ChoiceConfig = ChoiceConfig()
    part_pairs: int = Field(default=10, ge=1, description="pairs after which results are saved")
