"""Where rows of what a model can do already come from: data that the user names, or generated probe pairs."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vfl.data import Kind
from vfl.io.fields import Paths, SomeNames


class OldRowsConfig(BaseModel):
    """Rows that are mixed into every epoch, from one of two sources."""

    model_config = ConfigDict(extra="forbid")

    data: Paths = ()
    images: Path | None = Field(default=None, description="folder of the images; default: the data file's own")
    format: Kind | Literal["auto"] = "auto"
    probes: str | None = Field(default=None, description="instead of data: micro, standard, or a suite's folder")
    pairs: int = Field(default=100, ge=1, description="generated pairs a function, two rows each")
    probe_seed: int = Field(default=2, ge=0, description="of generated probes; not the one that is evaluated with")
    favour: SomeNames | None = Field(
        default=None, description="with probes: functions that the new rows are about; half of the old rows are theirs"
    )
    share: float = Field(default=0.1, gt=0, lt=1, description="of the rows of an epoch")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.data) == (self.probes is not None):
            raise ValueError("these rows come from data or from probes: give one of the two")
        if self.favour is not None and self.probes is None:
            raise ValueError("favour is about the functions of probes; data has the rows in the parts that you give it")
        return self
