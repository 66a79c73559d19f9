"""A published table or figure as a file: model, data on the hub, metric, and the printed numbers.

vfl measure --paper recipes/papers/NAME.yaml

The data is fetched from the hub and rewritten as questions (or as a probe suite, where objects have boxes), each set is
measured like any other data, and the printed numbers are shown beside the measured ones.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from jinja2 import TemplateError
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vfl.errors import InputError
from vfl.evaluate.items import DataMatch
from vfl.io.config import read_yaml, validated
from vfl.loading.config import ModelConfig, load_from
from vfl.measure.config import MeasureConfig, check_metrics
from vfl.measure.hub import write_objects, write_questions
from vfl.measure.metrics_file import Metrics
from vfl.measure.published import Beside, compare, save
from vfl.measure.rendering import ITEM, check_template
from vfl.measure.run import folder_of, run
from vfl.models.vlm import VLM

DATA = "data"
# What a user may give beside a paper's file: which model and how it is loaded, how much of the data, where results go.
MAY_GIVE = (*ModelConfig.model_fields, "out", "pairs", "lens_images")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _HubSet(_Strict):
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
    def _known_image(self) -> "_HubSet":
        if self.image not in self.columns:
            raise ValueError(f"image names {self.image!r}, which is not among columns")
        return self


class QuestionSet(_HubSet):
    """Rows that hold questions and answers.

    `question` and `answer` are Jinja templates over the columns, with the filters `letter` (0 is A) and `most_common`.
    `each` names a column with a list: then every entry is a question of its own, `item` in the templates.
    """

    kind: Literal["questions"]
    question: str
    answer: str
    each: str | None = None
    match: DataMatch = "auto"
    choices: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _templates(self) -> "QuestionSet":
        if self.each is not None and self.each not in self.columns:
            raise ValueError(f"each names {self.each!r}, which is not among columns")
        known = {*self.columns, *((ITEM,) if self.each else ())}
        for name in ("question", "answer"):
            try:
                unknown = check_template(getattr(self, name)) - known
            except TemplateError as error:
                raise ValueError(f"{name} is no Jinja template: {error}") from error
            if unknown:
                raise ValueError(f"{name} reads {', '.join(sorted(unknown))}, which is not among columns")
        return self


class ObjectSet(_HubSet):
    """Photographs with boxes, asked "Is there a ...?" (`vfl probes make --coco`).

    The column `objects` holds lists: `box` of [x0, y0, x1, y1] in pixels and `category` of class labels.
    """

    kind: Literal["objects"]
    objects: str
    box: str = "bbox"
    category: str = "category"
    functions: tuple[str, ...] = ("recognition",)
    pairs: int = Field(default=100, ge=1, description="a function")
    seed: int = 0

    @model_validator(mode="after")
    def _known_objects(self) -> "ObjectSet":
        if self.objects not in self.columns:
            raise ValueError(f"objects names {self.objects!r}, which is not among columns")
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

    `scalar` and `curve` are names in a metric's result; `minus` is a scalar that ours is subtracted from, for tables
    that print drops. A relation of "above" says that the paper only prints that its numbers are higher.
    """

    what: str = Field(min_length=1, description="the row or line as the paper calls it")
    set: str
    metric: str
    scalar: str | None = None
    value: float | None = None
    curve: str | None = None
    at: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    minus: str | None = None
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


def read_paper(file: Path, given: Mapping[str, Any] | None = None) -> Paper:
    """A paper's file, with the settings of a user over its own.

    Raises:
        InputError: for an unreadable file, unknown keys, wrong values, or settings that the file itself decides.
    """
    given = {key: value for key, value in (given or {}).items() if value is not None}
    if decided := [key for key in given if key not in MAY_GIVE]:
        raise InputError(
            f"{', '.join(decided)} was given with a paper's file, which decides that. Beside it may stand "
            f"{', '.join(MAY_GIVE)}; for anything else copy the file and change it."
        )
    return validated(Paper, read_yaml(file) | given, source=str(file))


def config_of(paper: Paper, name: str) -> MeasureConfig:
    """The settings of one of the paper's sets, its data being in place.

    Raises:
        InputError: for metrics or options that there are not.
    """
    check_metrics(paper.metrics, paper.options)
    one = paper.sets[name]
    values: dict[str, Any] = {field: getattr(paper, field) for field in ModelConfig.model_fields}
    values |= {"out": paper.out / name, "metrics": paper.metrics, "options": paper.options}
    values |= {"lens_images": paper.lens_images, "pairs": paper.pairs}
    folder = paper.out / DATA / name
    if isinstance(one, QuestionSet):
        values |= {"data": str(folder / f"{name}.jsonl"), "images": folder, "format": "messages"}
        values |= {"match": one.match, "choices": one.choices, "on_bad_row": "skip"}
    elif isinstance(one, ObjectSet):
        values["data"] = str(folder)
    else:
        values |= {"data": one.probes, "functions": one.functions, "seed": one.seed}
        values["pairs"] = one.pairs if paper.pairs is None else min(paper.pairs, one.pairs)
    return validated(MeasureConfig, values, source=paper.title)


def run_paper(
    file: Path, given: Mapping[str, Any] | None = None, *, overwrite: bool = False, resume: bool = False
) -> tuple[Paper, list[Beside]]:
    """Fetch a paper's data, measure it, and put its numbers beside ours (also as published.json in `out`).

    Data that lies in `out` already is not fetched again.

    Args:
        file: the paper's file.
        given: a user's settings (see `MAY_GIVE`).
        overwrite, resume: as of `vfl.measure.run.run`.
    """
    paper = read_paper(file, given)
    for name in paper.sets:
        config_of(paper, name)  # refuse before anything is fetched
    for name, one in paper.sets.items():
        folder = paper.out / DATA / name
        if isinstance(one, QuestionSet):
            write_questions(one, folder, name, paper.pairs)
        elif isinstance(one, ObjectSet):
            write_objects(one, folder, paper.pairs)
    vlm = load_from(paper)
    found: dict[str, Metrics] = {
        name: _measured(config_of(paper, name), vlm, overwrite=overwrite, resume=resume) for name in paper.sets
    }
    beside = compare(paper.published, {name: metrics.metrics for name, metrics in found.items()})
    save(paper.out, paper.title, paper.source, vlm.model_id, beside)
    return paper, beside


def _measured(config: MeasureConfig, vlm: VLM, *, overwrite: bool, resume: bool) -> Metrics:
    """One set; a paper that is resumed has sets that were not begun."""
    return run(config, vlm=vlm, overwrite=overwrite, resume=resume and folder_of(config).taken)
