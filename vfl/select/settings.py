"""Settings of `vfl select score`: a YAML recipe, overridden by flags, saved beside the scores."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from vfl.data import Kind
from vfl.engine.teacher_forcing import Ablation
from vfl.io.fields import LayersByFunction, OnBadRow, Paths, SomeNames
from vfl.loading.config import ModelConfig


class RayConfig(BaseModel):
    """Scoring on a Ray cluster (extra vfl[ray]): actors that each hold the model."""

    model_config = ConfigDict(extra="forbid")

    workers: int = Field(default=2, ge=1, description="actors, each with a model of its own")
    cpus: float = Field(default=1, gt=0, description="logical CPUs that an actor takes")
    gpus: float = Field(default=0, ge=0, description="GPUs that an actor takes")
    address: str | None = Field(default=None, description='of a running cluster ("auto"); else a local one is started')


class ScoreConfig(ModelConfig):
    """Settings of a scoring run. Paths must mean the same on every machine that takes part."""

    data: Paths | None = Field(default=None, description="files, folders of shards or saved datasets")
    images: Path | None = Field(default=None, description="folder of the images that rows name")
    format: Kind | Literal["auto"] = "auto"
    split: str | None = None
    allow_remote: bool = Field(default=False, description="fetch images whose names are addresses")
    image_column: SomeNames | None = Field(
        default=None, description="column, or columns in order, with the images; default: images or image"
    )
    source_column: str | None = Field(
        default=None, description="column that tells a row's source; default: source, task or dataset, else its file"
    )
    out: Path = Field(description="folder for the scores")
    map: Path | None = Field(default=None, description="map.json of `vfl locate`: functions and their layers")
    functions: SomeNames | None = Field(default=None, description="of the map; default: all that have layers")
    layers: LayersByFunction = Field(
        default_factory=dict, description="your own layers for functions, instead of the map's or beside them"
    )
    allow_other_model: bool = Field(default=False, description="the map's model was fine-tuned into this one")
    ablation: Ablation = Field(
        default="hide", description="what text reads at a function's layers: no image, a blank one, the mean one"
    )
    mean_images: int = Field(default=64, ge=1, description="first rows with images that ablation: mean averages over")
    max_length: int | None = Field(default=None, ge=2, description="most tokens a row; default: the model's context")
    on_bad_row: OnBadRow = Field(default="error", description="stop at the first bad row, or leave such rows out")
    batch_size: int = Field(
        default=16,
        ge=1,
        description="rows of middle length scored together; fewer of longer rows, more of shorter ones",
    )
    shard_rows: int | None = Field(
        default=None,
        ge=1,
        description="rows of a part, which is saved and dealt out at a time; default: 2048, fewer of small data or of"
        " rows that hold their images",
    )
    workers: int = Field(default=4, ge=1, description="threads that decode images ahead of the model")
    encoders: int = Field(
        default=2,
        ge=1,
        description="threads that make the model's inputs, each with a processor of its own",
    )
    expiry: float = Field(
        default=60, gt=0, description="seconds without a sign of life after which another takes a process's part"
    )
    ray: RayConfig | None = Field(default=None, description="score on Ray actors")


NOT_MEASURED = {
    "data", "images", "out", "map", "functions", "layers", "allow_other_model", "device", "device_map", "on_bad_row",
    "batch_size", "shard_rows", "workers", "encoders", "expiry", "ray", "model", "revision", "dtype", "chat_template",
    "min_pixels", "max_pixels", "trust_remote_code",
}  # fmt: skip
"""Settings that say where and how to run, or that the plan holds by what they lead to: hashes, layers, rows.

`batch_size` is among them: it moves scores by rounding alone.
"""
