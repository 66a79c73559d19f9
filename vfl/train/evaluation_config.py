"""The recipe's `evaluation` block: what is measured before, during and after training."""

from typing import Self

from pydantic import Field, model_validator

from vfl.evaluate.sources import DataSet
from vfl.io.fields import Names, Paths, SomeNames
from vfl.train.strict import Strict


class EvaluationConfig(Strict):
    """What is measured before, during and after training."""

    probes: str | None = Field(default=None, description="micro, standard, or the folder of a probe suite")
    functions: SomeNames | None = None
    pairs: int = Field(default=20, ge=1, description="generated pairs a function")
    seed: int = Field(default=1, ge=0, description="of generated probes; not the one the map was located with")
    data: dict[str, DataSet] = Field(default_factory=dict, description="your own sets, by name")
    metrics: Names = Field(default=(), description="names of `vfl.metrics`")
    at_start: bool = Field(default=True, description="measure step 0; without it there is no before")
    metric_pairs: int = Field(default=4, ge=1, description="probe pairs a function that metrics are measured on")
    batch_size: int = Field(default=16, ge=1)
    every: int | None = Field(default=None, ge=1, description="optimizer steps; None: only before and after")
    heldout: Paths = Field(default=(), description="rows like those of data.train, whose loss is measured")
    best: str | None = Field(
        default=None, description="loss, or the function or set whose accuracy decides: the best step is the result"
    )
    patience: int | None = Field(
        default=None, ge=1, description="evaluations without a better one, then training stops"
    )

    @model_validator(mode="after")
    def _judges_by_what_it_measures(self) -> Self:
        if self.patience is not None and self.best is None:
            raise ValueError("patience waits for a better step: say by what with best, which is loss or a function")
        if self.best is not None and self.every is None:
            raise ValueError("best is looked for at every evaluation: give every, a number of steps")
        if self.best == "loss" and not self.heldout:
            raise ValueError("best: loss is that of held-out rows: give their files with heldout")
        return self

    @property
    def wanted(self) -> bool:
        """Whether anything is to be measured."""
        return self.probes is not None or bool(self.data)
