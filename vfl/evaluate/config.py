"""Settings of `vfl evaluate`: a YAML file, overridden by flags, saved with the results."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from vfl.evaluate.sources import DataSet
from vfl.io.fields import SomeNames, SystemPrompt, split
from vfl.loading.config import ModelConfig
from vfl.probes.pair import Which


class EvaluateConfig(ModelConfig):
    """What to ask which model."""

    adapter: Path | None = Field(default=None, description="folder of a LoRA adapter to put on the model")
    out: Path = Field(description="folder for evaluation.json and answers.jsonl")
    probes: str | None = Field(default=None, description="folder of a probe suite, or generated: standard, micro")
    functions: SomeNames | None = Field(default=None, description="all of a suite, or the paper's four, if None")
    pairs: int = Field(default=100, ge=1, description="generated pairs a function")
    size: int | None = Field(default=None, ge=16, description="pixels of generated images")
    seed: int = Field(default=1, ge=0, description="of generated probes; `vfl locate` uses 0")
    which: Annotated[tuple[Which, ...], BeforeValidator(split)] = Field(
        default=("image",), min_length=1, description="images of a pair that are asked"
    )
    data: dict[str, DataSet] = Field(default_factory=dict, description="name -> data set")
    system_prompt: SystemPrompt | None = Field(
        default=None, description="the system turn of every question, in place of its own"
    )
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="most tokens of an answer; default: by the right answer's kind and length"
    )
    batch_size: int = Field(default=16, ge=1)
    baseline: Path | None = Field(default=None, description="evaluation.json, or its folder, to compare with")
