"""A paper's file: model, data on the hub, metrics, and the figures that are printed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from jinja2 import TemplateError
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vfl.errors import InputError
from vfl.evaluate.right_answers import DataMatch
from vfl.io.config import read_yaml, validated
from vfl.loading.config import ModelConfig
from vfl.measure.rendering import ITEM, check_template
from vfl.probes.coco import ObjectFilter

# What a user may give beside a paper's file: which model and how it is loaded, how much of the data, where results go.
MAY_GIVE = (*ModelConfig.model_fields, "out", "pairs", "lens_images")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class HubSet(_Strict):
    """A data set on the hub and what is taken from it."""

    hub: str = Field(min_length=1, description="id on the hub, or a folder with files that `datasets` reads")
    config: str | None = None
    split: str
    revision: str | None = None
    columns: tuple[str, ...] = Field(min_length=1, description="those that are read; all must be there")
    image: str = Field(description="the column with the image")
    rows: int | None = Field(default=None, ge=1, description="at most so many rows of the set; all by default")
    every: int = Field(default=1, ge=1, description="only every so many-th row, so that a part spans the whole set")

    @model_validator(mode="after")
    def _known_image(self) -> "HubSet":
        if self.image not in self.columns:
            raise ValueError(f"image names {self.image!r}, which is not among columns")
        return self


class QuestionSet(HubSet):
    """Rows that hold questions and answers.

    `question` and `answer` are Jinja templates over the columns, with the filters `letter` (0 is A) and `most_common`.
    `each` names a column with a list: then every entry is a question of its own, `item` in the templates; `each_most`
    takes only so many of a row (1: one question an image).
    """

    kind: Literal["questions"]
    question: str
    answer: str
    each: str | None = None
    each_most: int | None = Field(default=None, ge=1)
    match: DataMatch = "auto"
    choices: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _templates(self) -> "QuestionSet":
        if self.each is not None and self.each not in self.columns:
            raise ValueError(f"each names {self.each!r}, which is not among columns")
        if self.each_most is not None and self.each is None:
            raise ValueError("each_most was given without each")
        known = {*self.columns, *((ITEM,) if self.each else ())}
        for name in ("question", "answer"):
            try:
                unknown = check_template(getattr(self, name)) - known
            except TemplateError as error:
                raise ValueError(f"{name} is no Jinja template: {error}") from error
            if unknown:
                raise ValueError(f"{name} reads {', '.join(sorted(unknown))}, which is not among columns")
        return self


class ObjectSet(HubSet):
    """Photographs with boxes, asked "Is there a ...?" (`vfl probes make --coco`), or a `question` for its name.

    The column `objects` holds lists: `box` of [x0, y0, x1, y1] in pixels and `category` of class labels.
    """

    kind: Literal["objects"]
    objects: str
    box: str = "bbox"
    category: str = "category"
    functions: tuple[str, ...] = ("recognition",)
    question: str | None = Field(default=None, description="asked instead, the right answer being the object's name")
    smallest: float | None = Field(
        default=None, gt=0, description="pixels of the box's area; default: 2 % of the image"
    )
    largest: float | None = Field(default=None, gt=0, description="pixels of the box's area")
    alone: bool = Field(default=False, description="only objects that are the only one of their class in the image")
    most_annotations: int | None = Field(default=None, ge=1, description="most annotated objects in the image")
    pairs: int = Field(default=100, ge=1, description="a function")
    seed: int = 0

    @property
    def filter(self) -> ObjectFilter:
        """Which objects are taken."""
        return ObjectFilter(self.smallest, self.largest, self.alone, self.most_annotations)

    @model_validator(mode="after")
    def _known_objects(self) -> "ObjectSet":
        if self.objects not in self.columns:
            raise ValueError(f"objects names {self.objects!r}, which is not among columns")
        if self.question is not None and self.functions != ("recognition",):
            raise ValueError(f"question takes the place of recognition's; functions is {', '.join(self.functions)}")
        if self.smallest is not None and self.largest is not None and self.smallest > self.largest:
            raise ValueError(f"smallest is {self.smallest:g} and largest {self.largest:g}: no object lies between")
        return self


class ProbeSet(_Strict):
    """Generated probes."""

    kind: Literal["probes"]
    probes: Literal["standard", "micro"]
    functions: tuple[str, ...]
    pairs: int = Field(ge=1, description="a function")
    seed: int = 0


PaperSet = Annotated[QuestionSet | ObjectSet | ProbeSet, Field(discriminator="kind")]


class Published(_Strict):
    """Printed numbers: one `value` of a `scalar`, or `values` of a `curve` at the points `at`.

    `scalar` and `curve` are names in a metric's result. A relation of "above" says that the paper only prints that its
    numbers are higher.
    """

    what: str = Field(min_length=1, description="the row or line as the paper calls it")
    set: str
    metric: str
    scalar: str | None = None
    value: float | None = None
    curve: str | None = None
    at: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    relation: Literal["equal", "above"] = "equal"

    @model_validator(mode="after")
    def _one_kind(self) -> "Published":
        of_scalar = self.scalar is not None and self.value is not None and not (self.curve or self.at or self.values)
        of_curve = self.curve is not None and self.at and self.scalar is None and self.value is None
        if not (of_scalar or of_curve):
            raise ValueError("expected scalar and value, or curve, at and values")
        if len(self.at) != len(self.values):
            raise ValueError(f"{len(self.at)} points in at, but {len(self.values)} values")
        return self


class Paper(ModelConfig):
    """One published table or figure."""

    title: str = Field(min_length=1)
    source: str = Field(min_length=1, description="the paper")
    status: str = Field(min_length=1, description="whether the file was ever run, and where")
    notes: tuple[str, ...] = Field(default=(), description="where ours differs from the paper, and what it leaves open")
    out: Path
    metrics: tuple[str, ...] = Field(min_length=1)
    options: dict[str, dict[str, Any]] = Field(default_factory=dict, description="metric -> its options")
    pairs: int | None = Field(default=None, ge=1, description="at most so many questions of each set")
    lens_images: int = Field(default=0, ge=0)
    sets: dict[str, PaperSet] = Field(min_length=1)
    published: tuple[Published, ...] = ()

    @field_validator("sets")
    @classmethod
    def _file_names(cls, sets: dict[str, Any]) -> dict[str, Any]:
        if bad := [name for name in sets if not name.replace("-", "").replace("_", "").isalnum()]:
            raise ValueError(f"{bad[0]!r} can't name a file; use letters, digits, - and _")
        return sets

    @model_validator(mode="after")
    def _known(self) -> "Paper":
        for row in self.published:
            if row.set not in self.sets:
                raise ValueError(f"published: {row.what!r} is of the set {row.set!r}; there are {', '.join(self.sets)}")
            if row.metric not in self.metrics:
                raise ValueError(f"published: {row.what!r} is of {row.metric!r}, which is not among metrics")
        return self


def read_paper(file: Path, settings: Mapping[str, Any] | None = None) -> Paper:
    """A paper's file, with the settings of a user over its own.

    Raises:
        InputError: for an unreadable file, unknown keys, wrong values, or settings that the file itself decides.
    """
    settings = {key: value for key, value in (settings or {}).items() if value is not None}
    if decided := [key for key in settings if key not in MAY_GIVE]:
        raise InputError(
            f"{', '.join(decided)} was given with a paper's file, which decides that. Beside it may stand "
            f"{', '.join(MAY_GIVE)}; for anything else copy the file and change it."
        )
    return validated(Paper, read_yaml(file) | settings, source=str(file))
