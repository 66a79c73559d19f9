"""evaluation.json, schema 1, and the answers beside it: what a model answered, and how that differs from a baseline.

| key | value |
|---|---|
| `schema` | `1` |
| `model` | id, revision or weights hash, family, layers, limits of pictures, as in a function map |
| `adapter` | `{path, sha256}` of the adapter on it, or null |
| `step` | the training step, where training wrote it, or null |
| `settings` | the settings of the run, as they were resolved |
| `groups` | `{group: {n, correct, accuracy, low, high}}`, 95 % intervals |
| `cut` | `{group: share}` of answers without an end within their bound (`max_new_tokens`), of groups with some |
| `baseline` | `{source, groups}` of the run compared with, or null |
| `differences` | `{group: {n, before, after, difference, low, high, gained, lost}}`, paired over items, or null |
| `answers` | file with an answer a line (`id, group, expected, answer, correct, key, cut`), relative to this one |
| `answers_sha256` | its hash |
| `notes` | what a reader should know, such as rows left out |
| `versions` | `{package: version}` |
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from vfl.errors import InputError
from vfl.evaluate.answers import Answered
from vfl.evaluate.summary import Accuracy, Difference, compare, summarise
from vfl.functionmap import ModelId
from vfl.io.atomic import replacing
from vfl.io.json_files import Versioned, write_json
from vfl.io.notebook import html_table, percent, percent_interval
from vfl.io.versions import versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EVALUATION = "evaluation.json"
ANSWERS = "answers.jsonl"
FILE = Versioned(EVALUATION, "evaluation", schema=1, key="groups", command="vfl evaluate")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_by_name=True, validate_by_alias=True)


class AdapterId(_Strict):
    """The adapter on the model; the hash is over its weight files."""

    path: str
    sha256: str


class Baseline(_Strict):
    """The run that the differences are against."""

    source: str
    groups: dict[str, Accuracy]


class Evaluation(_Strict):
    """One evaluation; see the module's table."""

    # `schema` itself is a method of pydantic's BaseModel.
    schema_version: Literal[1] = Field(default=1, alias="schema")
    model: ModelId
    adapter: AdapterId | None = None
    step: int | None = None
    settings: dict[str, Any] = {}
    groups: dict[str, Accuracy]
    cut: dict[str, float] = {}
    baseline: Baseline | None = None
    differences: dict[str, Difference] | None = None
    answers: str = ANSWERS
    answers_sha256: str = ""
    notes: list[str] = []
    versions: dict[str, str] = Field(default_factory=versions)

    def __repr__(self) -> str:
        groups = ", ".join(f"{name} {percent(group.accuracy)} of {group.n}" for name, group in self.groups.items())
        return f"Evaluation({self.model.id}: {groups})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        name = self.model.id + (f" with {self.adapter.path}" if self.adapter else "")
        headings = ["group", "n", "accuracy", "95 %"]
        if self.differences is not None:
            headings += ["baseline", "difference (points)", "95 %", "gained", "lost"]
        rows = []
        for group, share in self.groups.items():
            row = [group, share.n, percent(share.accuracy), percent_interval(share.low, share.high)]
            if self.differences is not None:
                change = self.differences[group]
                ends = f"{100 * change.low:+.1f} to {100 * change.high:+.1f}"
                row += [percent(change.before), f"{100 * change.difference:+.1f}", ends, change.gained, change.lost]
            rows.append(row)
        return html_table(f"Accuracy of {name}", headings, rows, self.notes)

    def plot(self) -> "Figure":
        """Accuracy of each group with its 95 % interval, and the baseline's above it where there is one."""
        from vfl.report.dots import Dot
        from vfl.report.picture import picture
        from vfl.report.words import SHARE

        runs = {"baseline": self.baseline.groups, "this run": self.groups} if self.baseline else {"": self.groups}
        dots = [
            Dot(name, SHARE, share.accuracy, share.low, share.high, share.n, run)
            for run, groups in runs.items()
            for name, share in groups.items()
        ]
        figure = picture(f"Accuracy of {self.model.id}", dots=dots, axis="right answers, %")
        if figure is None:
            raise InputError("The evaluation has no group, so there is nothing to draw.")
        return figure

    def against(self, answered: Sequence[Answered], source: str, baseline: Sequence[Answered]) -> Self:
        """This evaluation, of which `answered` are the answers, with its paired differences from a baseline's.

        Raises:
            InputError: when the two did not ask the same items.
        """
        differences = compare(baseline, answered)
        return self.model_copy(
            update={"baseline": Baseline(source=source, groups=summarise(baseline)), "differences": differences}
        )

    def save(self, folder: Path, answered: Sequence[Answered]) -> Self:
        """Write the answers and then evaluation.json into `folder`, each whole or not at all."""
        written = self.model_copy(update={"answers_sha256": write_answers(folder / self.answers, answered)})
        content = written.model_dump(mode="json", by_alias=True)
        content["model"] = self.model.model_dump(exclude_none=True)
        write_json(folder / EVALUATION, content)
        return written


def read_evaluation(path: Path) -> tuple[Evaluation, list[Answered]]:
    """An evaluation and its answers, from evaluation.json or the folder that holds it.

    Raises:
        InputError: says in one line why there is none.
    """
    path = FILE.path_of(path)
    evaluation = FILE.read(Evaluation, path)
    answers = path.parent / evaluation.answers
    answered = read_answers(answers)
    if hashlib.sha256(answers.read_bytes()).hexdigest() != evaluation.answers_sha256:
        raise InputError(f"{answers} does not belong to {path}: its hash differs. Evaluate again.")
    return evaluation, answered


def write_answers(path: Path, answered: Sequence[Answered]) -> str:
    """Write an answer a line; returns the file's SHA-256."""
    lines = []
    for answer in answered:
        row = asdict(answer)
        row["answer"] = row.pop("text")
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    text = "".join(lines).encode()
    with replacing(path) as temporary:
        temporary.write_bytes(text)
    return hashlib.sha256(text).hexdigest()


def read_answers(path: Path) -> list[Answered]:
    """The answers that `write_answers` wrote.

    Raises:
        InputError: for a file that is none.
    """
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        return [Answered(text=row.pop("answer"), **row) for row in rows]
    except OSError as error:
        raise InputError(f"The answers {path} can't be read: {error.strerror}. Evaluate again.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} holds no answers of an evaluation ({error}). Evaluate again.") from error
