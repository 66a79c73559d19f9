"""The recipe of the embedded model: what recipes/micro/pretrain.yaml may say."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vfl.io.config import read_config
from vfl.testbeds.micro.questions import FUNCTIONS


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(Strict):
    """Sizes of the model; widths in channels."""

    width: int = 128
    feed_forward: int = 320
    layers: int = 10
    heads: int = 4
    kv_heads: int = 2
    rope_theta: float = 10000.0
    mrope_section: tuple[int, int, int] = (4, 6, 6)
    vision_width: int = 96
    vision_feed_forward: int = 192
    vision_depth: int = 2
    vision_heads: int = 4


class PlantConfig(Strict):
    """Where each function is planted, and how hard. Layers are 0-based.

    `probability` is the share of questions that are restricted at all; the three that follow are, for the layers
    outside the block, the shares that read the own image, another image and none; `drop_inside` is the share of the
    layers of a block in `spread` that read none (at least one stays).
    """

    layers: dict[str, tuple[int, ...]]
    spread: tuple[str, ...] = ()
    probability: float = 0.7
    own: float = 0.3
    other: float = 0.5
    none: float = 0.2
    drop_inside: float = 0.5

    @model_validator(mode="after")
    def check(self) -> Self:
        if set(self.layers) != set(FUNCTIONS):
            raise ValueError(f"plant.layers must name each of {', '.join(FUNCTIONS)} once, got {sorted(self.layers)}")
        if abs(self.own + self.other + self.none - 1.0) > 1e-9:
            raise ValueError(f"own + other + none must be 1, got {self.own + self.other + self.none}")
        return self

    def beyond(self, num_layers: int) -> list[int]:
        """The layers that a model of `num_layers` does not have."""
        return sorted({layer for block in self.layers.values() for layer in block if not 0 <= layer < num_layers})


class Recipe(Strict):
    """One training run. `planted: false` trains the twin: the same steps, every layer free to read its own image."""

    output: Path
    work: Path = Field(description="checkpoints and the log")
    seed: int = 0
    planted: bool = True
    free_steps: int
    plant_steps: int
    batch: int = 48
    slots: int = 4
    slot: int = 47
    learning_rate: float = 1.5e-3
    warmup: int = 200
    weight_decay: float = 0.01
    auxiliary: float = 1.0
    auxiliary_steps: int = 3000
    naming: float = 1.0
    naming_steps: tuple[int, int] = (0, 4000)
    finding: float = 1.0
    finding_steps: tuple[int, int] = (0, 4000)
    mixed: float = 0.5
    checkpoint_every: int = 250
    evaluate_every: int = 500
    threads: int | None = None
    compile: bool = True
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: bfloat16 where the processor or GPU has it, else float32"
    )
    model: ModelConfig = ModelConfig()
    plant: PlantConfig

    @property
    def steps(self) -> int:
        return self.free_steps + self.plant_steps


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file. Raises InputError for what the recipe does not know, as `read_config` does."""
    return read_config(Recipe, path, {})
