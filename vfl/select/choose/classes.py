"""Classes of scored rows, from the stored table alone: which function a row needs, or why it has none.

| class | rows |
|---|---|
| `text` | without an image; no vision score |
| `blind` | answered rightly with the image and without it |
| a function | the function that the row loses most without, among those without which it loses enough |
| `none` | no function's layers matter enough by themselves |

What a row loses is its drop in accuracy over the answer's tokens (the headline). A row that is wrong before anything is
taken away has no accuracy to lose: it is *unsolved*, is classed by its drop in log-probability, and is never blind.
Thresholds apply to raw drops; then drops are standardised per function (over all rows with an image) and compared. The
margin is the distance from the winner to the best other function, in standard deviations; it is below zero where that
other function's raw drop was under its threshold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vfl.errors import InputError
from vfl.io.atomic import replacing
from vfl.select.shards.score_folder import CLASSES, MEMORY, ScoreFolder, column, database, open_scores, text

Measure = Literal["accuracy", "logprob", "prob"]
Threshold = float | dict[str, float]
PREFIX: dict[str, str] = {"accuracy": "drop_", "logprob": "logprob_drop_", "prob": "prob_drop_"}
SCALE = 10**5
"""Means and deviations are summed in whole hundred-thousandths: the same whatever the order of the rows."""


class ClassConfig(BaseModel):
    """How classes are told apart. A threshold is one number, or one for each function by name."""

    model_config = ConfigDict(extra="forbid")

    measure: Measure = Field(default="accuracy", description="the drop that classes rows that are right before")
    min_accuracy_drop: Threshold = Field(default=0.05, description="share of the answer's tokens")
    min_logprob_drop: Threshold = Field(default=0.05, description="nats a token; also classes unsolved rows")
    min_prob_drop: Threshold = Field(default=0.05, description="of the answer's probability")
    right: float = Field(
        default=1.0, gt=0, le=1, description="share of the answer's tokens that makes an answer right; 1: all of them"
    )

    def threshold(self, measure: Measure, function: str) -> float:
        """The least raw drop that counts."""
        value: Threshold = getattr(self, f"min_{measure}_drop")
        return value.get(function, 0.05) if isinstance(value, dict) else value

    def check(self, functions: tuple[str, ...]) -> None:
        """Raise InputError where a threshold names a function that was not scored."""
        for measure in PREFIX:
            value = getattr(self, f"min_{measure}_drop")
            if unknown := [name for name in (value if isinstance(value, dict) else ()) if name not in functions]:
                raise InputError(f"min_{measure}_drop names {unknown[0]!r}; the scores have {', '.join(functions)}.")


@dataclass(frozen=True)
class Spread:
    mean: float
    deviation: float

    def standardised(self, raw: str) -> str:
        """The SQL of a standardised drop; where all rows lose alike nothing stands out."""
        if self.deviation == 0:
            return f"CASE WHEN {raw} IS NULL THEN NULL ELSE 0.0::DOUBLE END"
        return f"(({raw})::DOUBLE - {self.mean!r}::DOUBLE) / {self.deviation!r}::DOUBLE"


Spreads = Mapping[tuple[str, str], Spread]
"""By (measure, function)."""


def raw_drop(measure: str, function: str) -> str:
    """The SQL of a raw drop; NaN and infinity count as none."""
    name = column(PREFIX[measure] + function)
    return f"(CASE WHEN isfinite({name}) THEN {name} END)"


def spreads(connection: Any, folder: ScoreFolder) -> dict[tuple[str, str], Spread]:
    """Mean and standard deviation of each function's drops over all rows with an image, in one pass."""
    pairs = [(measure, name) for measure in PREFIX for name in folder.functions]
    parts = []
    for measure, name in pairs:
        whole = f"round(greatest(least({raw_drop(measure, name)}, 10000), -10000)::DOUBLE * {SCALE})::BIGINT"
        parts += [f"count({whole})", f"sum({whole})", f"sum({whole} * {whole})"]
    query = f"SELECT {', '.join(parts)} FROM {folder.table(connection)} WHERE kind = 'vision'"
    row = connection.execute(query).fetchone()
    found = {}
    for place, pair in enumerate(pairs):
        count, total, squares = row[3 * place : 3 * place + 3]
        if not count:
            found[pair] = Spread(0.0, 0.0)
            continue
        variance = max(int(squares) * count - int(total) ** 2, 0) / (count * count)
        found[pair] = Spread(int(total) / count / SCALE, variance**0.5 / SCALE)
    return found


def create_view(connection: Any, folder: ScoreFolder, config: ClassConfig, name: str = "classed") -> Spreads:
    """A view with the table's columns and `solved`, `class`, `score`, `score2`, `margin` and each function's `z_F`.

    `score` is the standardised drop of the class's function (the largest of all functions in `none` and `blind`, null
    in `text`); `score2`, its standardised drop in log-probability, orders rows of equal score.
    """
    config.check(folder.functions)
    found = spreads(connection, folder)
    functions = folder.functions
    if config.right == 1:
        solved, blind = "coalesce(exact, false)", "coalesce(no_image_exact, false)"
    else:
        solved = f"coalesce(accuracy >= {config.right!r}, false)"
        blind = f"coalesce(no_image_accuracy >= {config.right!r}, false)"
    measured, enough = [], []
    for f in functions:
        own, unsolved = (raw_drop(measure, f) for measure in (config.measure, "logprob"))
        z, z_log = (
            found[measure, f].standardised(raw) for measure, raw in ((config.measure, own), ("logprob", unsolved))
        )
        measured.append(f"CASE WHEN solved THEN {z} ELSE {z_log} END AS {column('z_' + f)}")
        measured.append(f"{z_log} AS {column('l_' + f)}")
        limits = (config.threshold(measure, f) for measure in (config.measure, "logprob"))
        passed = [f"{raw} >= {limit!r}" for raw, limit in zip((own, unsolved), limits, strict=True)]
        enough.append(f"CASE WHEN CASE WHEN solved THEN {passed[0]} ELSE {passed[1]} END THEN {column('z_' + f)} END")
    zs = [column("z_" + f) for f in functions]
    cases = "".join(f" WHEN {candidate} = best THEN {text(f)}" for candidate, f in zip(enough, functions, strict=True))
    margins, seconds = [], []
    for f in functions:
        others = [column("z_" + other) for other in functions if other != f]
        if others:
            margins.append(f"WHEN {text(f)} THEN best - greatest({', '.join(others)})")
        seconds.append(f"WHEN {text(f)} THEN {column('l_' + f)}")
    margin = f"CASE class {' '.join(margins)} END" if margins else "NULL::DOUBLE"
    hidden = ", ".join(["best", *(column("l_" + f) for f in functions)])
    connection.execute(f"""
        CREATE OR REPLACE VIEW {name} AS
        WITH told AS (
            SELECT *, CASE WHEN kind = 'vision' THEN {solved} END AS solved
            FROM {folder.table(connection)}),
        measured AS (SELECT *, {", ".join(measured)} FROM told),
        compared AS (SELECT *, greatest({", ".join(enough)}) AS best FROM measured),
        named AS (
            SELECT *, CASE WHEN kind <> 'vision' THEN 'text' WHEN solved AND {blind} THEN 'blind'
                WHEN best IS NULL THEN 'none'{cases} END AS class
            FROM compared)
        SELECT * EXCLUDE ({hidden}),
            CASE WHEN class = 'text' THEN NULL WHEN class IN ('none', 'blind') THEN greatest({", ".join(zs)})
                ELSE best END AS score,
            CASE class {" ".join(seconds)} END AS score2,
            {margin} AS margin
        FROM named""")
    return found


def classify(scores: str | Path, config: ClassConfig | None = None, *, memory: str = MEMORY) -> Path:
    """Write classes.parquet (uid, position, solved, class, margin, score) beside the raw scores; its path.

    Selecting does not read it: `vfl select filter` classes anew, so that other settings need no other scores.
    """
    folder = open_scores(scores)
    path = folder.path / CLASSES
    with database(memory) as connection, replacing(path) as temporary:
        create_view(connection, folder, config or ClassConfig())
        connection.execute(
            "COPY (SELECT uid, position, solved, class, margin, score FROM classed ORDER BY position)"
            f" TO {text(str(temporary))} (FORMAT parquet)"
        )
    return path
