"""Settings of commands whose work is a few lines of their own: `vfl swap`, `vfl skip` and `vfl layers`."""

from pathlib import Path

from pydantic import Field

from vfl.engine.row_start import Reading
from vfl.io.fields import Names, Paths
from vfl.loading.config import ModelConfig


class SwapConfig(ModelConfig):
    """One question on two images."""

    target: Path = Field(description="the image that is asked about")
    source: Path = Field(description="the image whose vision tokens are swapped in; of equal size")
    question: str = Field(min_length=1)
    window: int = Field(default=1, ge=1, description="layers swapped at a time")
    reading: Reading = "text"
    max_new_tokens: int = Field(default=16, ge=1, description="most tokens of an answer")


class SkipConfig(ModelConfig):
    """Layers without vision tokens, by entry and exit or by a map, and what is asked."""

    entry: int | None = Field(default=None, ge=0, description="vision tokens enter at this layer (0)")
    exit: int | None = Field(default=None, ge=0, description="and are gone from this layer on (the last)")
    map: Path | None = Field(default=None, description="map.json of `vfl locate`, or the folder that holds it")
    keep: Names = Field(default=(), description="with a map: functions whose layers see the image")
    image: Path | None = Field(default=None, description="picture to ask about; a made one if left out")
    question: str | None = None
    tokens: int = Field(default=32, ge=2, description="length of the timed answers")
    repeats: int = Field(default=3, ge=1, description="timed answers of each")


class LayersConfig(ModelConfig):
    """Training rows whose layers are ranked."""

    data: Paths = Field(default=(), description="files, folders of shards or saved datasets")
    images: Path | None = Field(default=None, description="folder of the images that the data's rows name")
    map: Path | None = Field(default=None, description="map.json of `vfl locate`, or the folder that holds it")
    functions: Names = Field(default=(), description="what the rows are about, for the map")
    count: int | None = Field(default=None, description="layers that a rule takes; half of them by default")
    sample: int = Field(default=64, description="training rows that are read")
    warmup: int = Field(default=0, description="steps of a short LoRA run in all layers; 0 leaves this rule out")
    out: Path | None = Field(default=None, description="folder for layers.json and layers.png")
    seed: int = 0
    allow_other_model: bool = False
