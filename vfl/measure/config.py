"""Settings of `vfl measure`: a YAML file, overridden by flags, saved with the results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vfl.data import Kind
from vfl.errors import InputError
from vfl.evaluate.right_answers import DataMatch
from vfl.io.fields import Names, OnBadRow, SomeNames, split
from vfl.loading.config import ModelConfig
from vfl.measure.row_boxes import BoxFormat
from vfl.measure.row_objects import ObjectColumns
from vfl.metrics.measure import check_names, check_options, known_metrics
from vfl.probes.pair import LettersBy

ALL = "all"


class JudgeConfig(BaseModel):
    """An endpoint with OpenAI's chat completions, which says whether a free-form answer is right. Never by default."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(description="address up to and without /chat/completions, such as http://localhost:8000/v1")
    model: str = Field(min_length=1, description="the name that the endpoint knows the judging model by")
    key_variable: str | None = Field(default=None, description="environment variable with the key, if any")
    timeout: float = Field(default=60, gt=0, description="seconds a reply may take")
    tries: int = Field(default=3, ge=1, description="attempts where the endpoint is busy or does not answer")

    @field_validator("url")
    @classmethod
    def _web(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("expected an address that begins with http:// or https://")
        return url.rstrip("/").removesuffix("/chat/completions")


class MeasureConfig(ModelConfig):
    """What to measure of which model, on what."""

    out: Path = Field(description="folder for metrics.json, report.html and figures/")
    metrics: tuple[str, ...] | Literal["all"] = Field(default="all", description="names, or all of them")
    data: str | None = Field(
        default=None,
        description="questions and answers in any format that is read, a probe suite's folder, or generated probes: "
        "standard, micro; by default standard, or micro for the embedded model",
    )
    images: Path | None = Field(default=None, description="folder of the images that rows name")
    format: Kind | Literal["auto"] = Field(default="auto", description="kind of the rows, where it isn't clear")
    image_column: SomeNames | None = Field(
        default=None, description="column, or columns in order, with the images; default: images or image"
    )
    column: str | None = Field(default=None, description="rows are grouped by the value of this column")
    match: DataMatch = Field(default="auto", description="how answers to rows are compared")
    choices: Names = Field(
        default=(),
        description="the answers that all rows choose from, instead of each row's column `choices`; letters are listed "
        "by the questions",
    )
    box_column: str | None = Field(
        default=None,
        min_length=1,
        description="column with the boxes of a row's object; default: boxes or bbox; none: no boxes are read",
    )
    box_format: BoxFormat = Field(
        default="auto",
        description="a box's numbers; auto: bbox is x, y, width, height, any other column (and answer) x0, y0, x1, y1, "
        "in pixels; numbers all in 0 to 1 are x0, y0, x1, y1 in shares of the sides (relative); or as a model family "
        "writes them",
    )
    label_column: str = Field(default="label", min_length=1, description="column with the name of a row's object")
    letters: LettersBy = Field(
        default="logits",
        description="how the letter of a choice is told, where choices are capital letters: the likeliest first token, "
        "or text, the generated answer",
    )
    on_bad_row: OnBadRow = "error"
    functions: SomeNames | None = Field(default=None, description="only these functions (or groups of rows)")
    pairs: int | None = Field(
        default=None, ge=1, description="a function: generated (12), or the first so many of a suite or of rows (all)"
    )
    size: int | None = Field(default=None, ge=16, description="pixels of generated images")
    seed: int = Field(default=1, ge=0, description="of generated probes; `vfl locate` uses 0")
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="most tokens of an answer; default: by the right answer's kind and length"
    )
    options: dict[str, dict[str, Any]] = Field(default_factory=dict, description="metric -> its options")
    judge: JudgeConfig | None = None
    lens_images: int = Field(default=3, ge=0, description="pictures of the interactive lens; 0: none")

    @field_validator("metrics", mode="before")
    @classmethod
    def _listed(cls, written: Any) -> Any:
        """ "var,cosine" -> ["var", "cosine"]; all of them is a word of its own."""
        return written if written == ALL else split(written)

    @model_validator(mode="before")
    @classmethod
    def _options_in_their_place(cls, values: Any) -> Any:
        """`--set cosine.eps=0.02` was how vfl 0.1 set an option of a metric."""
        misplaced = [key for key in values if key in known_metrics() and key not in cls.model_fields]
        if misplaced:
            raise ValueError(f"{misplaced[0]} is a metric; its options are set as options.{misplaced[0]}.NAME=VALUE")
        return values

    @property
    def object_columns(self) -> ObjectColumns:
        """Where rows hold their object."""
        return ObjectColumns(box=self.box_column, format=self.box_format, label=self.label_column)

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics to measure, without repetition."""
        return tuple(known_metrics()) if self.metrics == ALL else tuple(dict.fromkeys(self.metrics))


def check_metrics(names: Sequence[str], options: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse unknown metrics and options before a model is loaded.

    Raises:
        InputError: names what is unknown and what there is.
    """
    if not names:
        raise InputError(f"No metrics were named. Give all, or some of {', '.join(known_metrics())}.")
    check_names(names)
    check_options(names, options)
