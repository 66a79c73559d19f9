"""Settings of `vfl lora-config`: those keys of a recipe that say what is adapted, and for which tools it is written."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from vfl.io.fields import split
from vfl.loading.beds import EMBEDDED_ID
from vfl.train.layers.choice import LayerChoice


class LoraFilesConfig(BaseModel):
    """A LoRA configuration, without training."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str = Field(default=EMBEDDED_ID, description="folder, hub id, or embedded: the test model")
    revision: str | None = None
    trust_remote_code: bool = False
    layers: LayerChoice
    match_rank: bool = Field(default=False, description="scale the rank to as many trainable parameters as full-LoRA")
    lora: dict[str, Any] = Field(default_factory=dict)
    also_adapt: Annotated[tuple[str, ...], BeforeValidator(split)] = ()
    out: Path | None = Field(default=None, description="folder for the files; shown if left out")
    tool: Literal["peft", "llamafactory", "swift", "axolotl", "unsloth", "all"] = "all"
