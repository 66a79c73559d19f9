"""Settings of `vfl probes make`: which pairs a suite holds."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from vfl.io.fields import Names, split


class SuiteConfig(BaseModel):
    """A suite of drawn pairs, or of pairs from photographs."""

    model_config = ConfigDict(extra="forbid")

    out: Path = Field(description="folder for the suite; must not hold one already")
    functions: Names | None = Field(default=None, description="the paper's four, or those of the photographs, if None")
    pairs: int = Field(default=100, description="pairs of each function")
    group: int | None = Field(
        default=None, ge=2, description="draw groups of so many images of one scene, and all ordered pairs of each"
    )
    seed: int = 0
    style: str = Field(default="standard", description="standard: for real models; micro: for the embedded one")
    size: int | None = Field(default=None, description="pixels of generated images, on a side")
    objects: Path | None = Field(default=None, description="folder of your own pictures, one a class")
    coco: tuple[Path, Path] | None = Field(default=None, description="COCO annotations and image folder")

    @field_validator("functions", mode="before")
    @classmethod
    def _no_name_is_a_wrong_name(cls, value: object) -> object:
        """The one who draws lists what there is."""
        return [""] if isinstance(value, str) and not split(value) else value
