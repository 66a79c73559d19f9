"""metrics.json, schema 1.

| key | value |
|---|---|
| `schema` | `1` |
| `model` | `{id, revision, weights_sha256, family, num_layers}`, as in map.json |
| `data` | `{kind: probes or questions, name, sha256, n: pairs, functions: {name: number}, left_out: [reasons]}` |
| `settings` | the settings of the run, as they were resolved |
| `metrics` | `{name: result}`: `n`, `scalars`, `curves`, `options` and what a metric adds (vfl/metrics/result.py) |
| `not_measured` | `{name: reason}` of metrics that do not apply to this model or data |
| `seconds` | `{name: wall time}` |
| `versions` | `{package: version}` |
"""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vfl.errors import InputError
from vfl.functionmap import ModelId
from vfl.io.atomic import replacing
from vfl.models.identity import versions

METRICS = "metrics.json"
SCHEMA = 1


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

    def save(self, folder: Path) -> Path:
        """Write metrics.json into a folder, whole or not at all."""
        content = self.model_dump(mode="json", by_alias=True)
        content["model"] = self.model.model_dump(exclude_none=True)
        with replacing(folder / METRICS) as temporary:
            text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8")
        return folder / METRICS


def read_metrics(path: Path) -> Metrics:
    """A run's metrics, from metrics.json or the folder that holds it.

    Raises:
        InputError: says in one line why there are none.
    """
    path = path / METRICS if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"No metrics at {path}: {error.strerror}. Write them with `vfl measure`.") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); expected the metrics.json of `vfl measure`.") from error
    if not isinstance(content, dict) or "metrics" not in content or "schema" not in content:
        raise InputError(f"{path} is no metrics.json: it has no 'schema' and 'metrics' at its top level.")
    if content["schema"] != SCHEMA:
        raise InputError(f"{path} has schema {content['schema']!r}, this version of vfl reads {SCHEMA}. Measure again.")
    try:
        return Metrics.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
