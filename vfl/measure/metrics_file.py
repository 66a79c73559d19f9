"""metrics.json, schema 1.

| key | value |
|---|---|
| `schema` | `1` |
| `model` | `{id, revision, weights_sha256, family, num_layers, min_pixels, max_pixels}`, as in map.json |
| `data` | `{kind: probes or questions, name, sha256, n: pairs, functions: {name: number}, left_out: [reasons]}` |
| `settings` | the settings of the run, as they were resolved |
| `metrics` | `{name: result}`: `n`, `scalars`, `curves`, `options` and what a metric adds (vfl/metrics/result.py) |
| `not_measured` | `{name: reason}` of metrics that do not apply to this model or data |
| `seconds` | `{name: wall time}` |
| `versions` | `{package: version}` |
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vfl.errors import InputError
from vfl.functionmap import ModelId
from vfl.io.json_files import Versioned, write_json
from vfl.io.notebook import html_table
from vfl.io.versions import versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = "metrics.json"
FILE = Versioned(METRICS, "metrics", schema=1, key="metrics", command="vfl measure")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_by_name=True, validate_by_alias=True)


class MeasuredOn(_Strict):
    """The data; the hash is over questions, answers and images."""

    kind: Literal["probes", "questions"]
    name: str
    sha256: str
    n: int
    functions: dict[str, int]
    left_out: list[str] = []


class Metrics(_Strict):
    """One run of `vfl measure`; see the module's table."""

    # `schema` itself is a method of pydantic's BaseModel.
    schema_version: Literal[1] = Field(default=1, alias="schema")
    model: ModelId
    data: MeasuredOn
    settings: dict[str, Any] = {}
    metrics: dict[str, dict[str, Any]]
    not_measured: dict[str, str] = {}
    seconds: dict[str, float] = {}
    versions: dict[str, str] = Field(default_factory=versions)

    def __repr__(self) -> str:
        return f"Metrics({self.model.id} on {self.data.n} samples: {', '.join(self.metrics)})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        rows = [
            (metric, name, *(_number(scalar[key]) for key in ("value", "low", "high")), scalar["n"])
            for metric, measured in self.metrics.items()
            for name, scalar in measured["scalars"].items()
        ]
        return html_table(
            f"Metrics of {self.model.id} on {self.data.name}",
            ("metric", "what", "value", "95 % from", "to", "n"),
            rows,
            (f"Not measured: {name}: {reason}" for name, reason in self.not_measured.items()),
        )

    def plot(self, metric: str | None = None) -> "Figure":
        """A metric as the report draws it.

        Args:
            metric: its name; it may be left out where only one was measured.

        Raises:
            InputError: for a metric that was not measured, or has no numbers to draw.
        """
        from vfl.measure.metric_figure import metric_figure

        name = next(iter(self.metrics)) if metric is None and len(self.metrics) == 1 else metric
        if name not in self.metrics:
            got = "No metric was named" if metric is None else f"There is no metric {metric!r}"
            there = ", ".join(self.metrics) or "none, see not_measured"
            raise InputError(f"{got}; those measured are {there}: plot('NAME') draws one of them.")
        figure = metric_figure(name, self.metrics[name], self.data.functions)
        if figure is None:
            raise InputError(f"{name} has no curve, table or share to draw; its numbers are in metrics[{name!r}].")
        return figure

    def save(self, folder: Path) -> Path:
        """Write metrics.json into a folder, whole or not at all."""
        content = self.model_dump(mode="json", by_alias=True)
        content["model"] = self.model.model_dump(exclude_none=True)
        write_json(folder / METRICS, content, indent=1)
        return folder / METRICS


def read_metrics(path: Path) -> Metrics:
    """A run's metrics, from metrics.json or the folder that holds it.

    Raises:
        InputError: says in one line why there are none.
    """
    return FILE.read(Metrics, path)


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"
