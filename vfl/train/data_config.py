"""The recipe's `data` block: which rows are trained on, and which old ones beside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_serializer, model_validator

from vfl.data import Kind
from vfl.evaluate.right_answers import RowMatch
from vfl.io.fields import OnBadRow, Paths, SomeNames, SystemPrompt, several
from vfl.io.hub import named
from vfl.train.old_rows import OldRowsConfig
from vfl.train.strict import Strict


class ReplayConfig(OldRowsConfig):
    """Rows of what the model can do already, mixed into every epoch so that it keeps that."""

    functions: SomeNames | None = Field(default=None, description="of the probes; default: the paper's four, or all")


class TrainingSet(Strict):
    """A set of rows with settings of its own; those that are left out are the ones of `data`."""

    path: Annotated[Paths, Field(min_length=1)]
    images: Path | None = Field(default=None, description="folder of this set's images")
    format: Kind | Literal["auto"] | None = None
    image_column: SomeNames | None = None
    match: RowMatch | None = None
    weight: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="share of the rows of an epoch, over the sum of all weights; left out everywhere: each row once",
    )

    @property
    def plain(self) -> bool:
        """Whether it says nothing but where its rows are."""
        return self.model_dump(exclude_none=True).keys() == {"path"}


def _sets(value: Any) -> Any:
    """Paths and sets as sets: paths beside each other are one."""
    value = several(value)
    if not isinstance(value, Sequence):
        return value
    entries: list[Any] = []
    paths: list[Any] = []
    for entry in value:
        if not isinstance(entry, str | Path):
            paths = []
            entries.append(entry)
        elif paths:
            paths.append(entry)
        else:
            paths = [entry]
            entries.append({"path": paths})
    return entries


class DataConfig(Strict):
    """Rows to train on; formats are those of `vfl.data`."""

    train: Annotated[tuple[TrainingSet, ...], BeforeValidator(_sets), Field(min_length=1)] = Field(
        description="a path, several, or sets with the keys below"
    )
    stopping_strategy: Literal["all_exhausted", "first_exhausted"] = Field(
        default="all_exhausted",
        description="with weights: an epoch ends when every row of all sets has come, or when one set is through",
    )
    images: Path | None = Field(default=None, description="folder of the images; default: the data file's own")
    format: Kind | Literal["auto"] = Field(default="auto", description="the kind of rows: see docs/data-formats.md")
    max_length: int | None = Field(
        default=None, ge=1, description="most tokens of a row, image tokens included; under grpo, of its question"
    )
    system_prompt: SystemPrompt | None = Field(
        default=None,
        description="the system turn of every row, in place of its own; the run's evaluations ask under it",
    )
    on_bad_row: OnBadRow = "error"
    on_long_row: OnBadRow = "error"
    allow_remote: bool = False
    image_column: SomeNames | None = Field(
        default=None, description="column, or columns in order, with the images; default: images or image"
    )
    match: RowMatch = Field(
        default="auto",
        description="under grpo, how sampled answers are compared with a row's own; places are in pixels of the file",
    )
    workers: int | None = Field(
        default=None, ge=0, description="processes that encode rows once before the first step; default: one a core"
    )
    streaming: bool = Field(
        default=False,
        description="pictures in parquet files, here or on the hub, are read where they lie and not copied into the "
        "cache; rows are shuffled by row groups",
    )
    token_weights: Path | None = Field(
        default=None, description="token-weights.parquet of a subset: the loss is over the answer tokens of weight 1"
    )
    replay: ReplayConfig | None = None

    @model_validator(mode="after")
    def _weighs_all_or_none(self) -> Self:
        weighed = [source.weight is not None for source in self.train]
        if any(weighed) and not all(weighed):
            raise ValueError(
                "weights are shares of an epoch, and a set of train has none: give each set a weight ({path: ..., "
                "weight: ...}), or none of them"
            )
        if self.stopping_strategy == "first_exhausted" and not any(weighed):
            raise ValueError("stopping_strategy: first_exhausted is about weights, and no set of train has one")
        return self

    @field_serializer("train")
    def _as_written(self, train: tuple[TrainingSet, ...]) -> list[Any]:
        if len(train) == 1 and train[0].plain:
            return [named(path) for path in train[0].path]
        return [
            source.model_dump(mode="json", exclude_none=True) | {"path": [named(path) for path in source.path]}
            for source in train
        ]

    @property
    def sets(self) -> tuple[TrainingSet, ...]:
        """The sets of `train`, each with all that it needs to be read."""
        own = {name: getattr(self, name) for name in ("images", "format", "image_column", "match")}
        return tuple(
            source.model_copy(update={key: value for key, value in own.items() if getattr(source, key) is None})
            for source in self.train
        )
