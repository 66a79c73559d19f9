"""The policy `balanced`: a budget for each function's rows, spread over kinds of questions, answers and looks.

1. Rows are about the function of their cluster (profiles.py). Repeats are left out, and clusters whose answers the
   text gives. Probably wrong answers (suspects.py) come last, when nothing else is left.
2. A function's share is n^(1 - LEVEL) * (LEAST + (1 - LEAST) * u): n its rows, u the part of them that the model does
   not answer yet, of those that the commonest answer of their cluster would not get right either: half of yes and no
   is nothing known. Between the data's proportions and equal parts, and moved to what is left to learn. k functions
   with the same layers are one class with k shares, each of n / k rows. Rows without an image, and clusters that need
   one and that the model does not look at yet, have the share that they have in the data.
3. Inside a function clusters take turns, inside a cluster its answers, and rows whose answers don't repeat by how they
   look; each the more often the more rows it has, but less than in proportion. What a row scores plays no part: of
   equal rows those that the model does not answer are wrong ones too often. Among rows of one answer looks are no guide
   either: a picture that is rare for its answer is often a wrong answer.
4. A tenth of the budget is drawn from all rows that are not left out: what the rest is wrong about stays in.

Turns are numbers: the j-th row of a group of weight w comes at (j + chance) / w, so that the smallest numbers are a
draw in these proportions, and one sort of all rows fills any budget.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vfl.select.choose.allocation import Tier
from vfl.select.choose.profiles import UNREAD, By, Cluster, check_profiles, find_clusters
from vfl.select.choose.suspects import find_suspects
from vfl.select.shards.score_folder import ScoreFolder, text

RANDOM, SUSPECT, BLIND, TEXT = "(random)", "(suspect)", "blind", "text"
NATURAL = (TEXT, UNREAD)
"""Strata with the share that they have in the data: nothing is known of what they need."""
RARE = 5
"""Rows with the same answer in a cluster, under which an answer is no group of its own."""
Junk = Literal["blind", "repeats", "suspects"]


class BalanceConfig(BaseModel):
    """How the policy `balanced` fills the budget."""

    model_config = ConfigDict(extra="forbid")

    clusters: By = Field(default="both", description="made of words of questions, of effects, or of both")
    level: float = Field(default=0.75, ge=0, le=1, description="0: shares as in the data; 1: equal ones")
    least: float = Field(default=0.2, ge=0, le=1, description="share of a solved function beside an unsolved one")
    answers: float = Field(default=0.5, ge=0, le=1, description="0: answers as often as in the data; 1: equally often")
    spread: bool = Field(default=True, description="take turns over clusters, answers and looks")
    drop: tuple[Junk, ...] = Field(default=("blind", "repeats", "suspects"), description="what is left out")
    random: float = Field(default=0.1, ge=0, le=1, description="share of the budget that is drawn")


@dataclass(frozen=True)
class Balance:
    """Weights of the strata in the table `placed(position, stratum, turn)`, and what was left out."""

    tiers: list[Tier]
    clusters: list[Cluster]
    left_out: dict[str, int] = field(default_factory=dict)


def balance(
    connection: Any, folder: ScoreFolder, config: BalanceConfig, *, part: float, drawn: str, seed: int
) -> Balance:
    """Write the table `placed` from the view `classed` and the table `duplicate`.

    Args:
        part: the budget's part of all rows' cost.
        drawn: the SQL of a number in (0, 1) for each row.
        seed: of clusters.

    Raises:
        InputError: the scores lack what clusters are made of.
    """
    check_profiles(connection, folder)
    clusters = find_clusters(connection, folder, by=config.clusters, seed=seed)
    left_out = {"blind": 0, "suspects": 0}
    connection.execute("CREATE OR REPLACE TABLE suspect (position BIGINT)")
    if "suspects" in config.drop:
        left_out["suspects"] = find_suspects(connection)
    if "blind" not in config.drop:
        _look_anyway(connection)
    stratum = f"""CASE WHEN kind <> 'vision' THEN {text(TEXT)} WHEN profile = {text(BLIND)} THEN {text(BLIND)}
        WHEN suspect.position IS NOT NULL THEN {text(SUSPECT)}
        WHEN {drawn} < {config.random * part!r}::DOUBLE THEN {text(RANDOM)} ELSE profile END"""
    connection.execute(f"""
        CREATE OR REPLACE TABLE strata AS
        SELECT position, {stratum} AS stratum, cluster, cell, answer, coalesce(solved, exact, false) AS solved,
            {drawn} AS drawn
        FROM classed ANTI JOIN duplicate USING (position)
        LEFT JOIN profiled USING (position) LEFT JOIN suspect USING (position)""")
    (left_out["blind"],) = connection.execute(f"SELECT count(*) FROM strata WHERE stratum = {text(BLIND)}").fetchone()
    _take_turns(connection, config)
    return Balance(_tiers(connection, config, folder.standing_for), clusters, left_out)


def shares(
    counts: dict[str, tuple[int, float]], config: BalanceConfig, standing_for: Callable[[str], int] = lambda name: 1
) -> dict[str, float]:
    """Each class's share of what is not drawn at random, from its rows and the part of them that is unsolved.

    Args:
        standing_for: how many functions a class is of.
    """
    total = sum(rows for rows, _ in counts.values())
    weights = {
        name: standing_for(name) ** config.level
        * (rows / total) ** (1 - config.level)
        * (config.least + (1 - config.least) * unsolved)
        for name, (rows, unsolved) in counts.items()
    }
    whole = sum(weights.values())
    if not whole:  # nothing is left to learn and solved functions were to get nothing
        return {name: rows / total for name, (rows, _) in counts.items()}
    return {name: weight / whole for name, weight in weights.items()}


def _tiers(connection: Any, config: BalanceConfig, standing_for: Callable[[str], int]) -> list[Tier]:
    rows = connection.execute("""
        WITH guessed AS (
            SELECT cluster, max(rows) / sum(rows) AS share
            FROM (SELECT cluster, count(*) AS rows FROM strata GROUP BY cluster, answer) GROUP BY cluster)
        SELECT stratum, count(*), least(1, sum((NOT solved)::INT) / greatest(sum(1 - coalesce(share, 0)), 1e-9))
        FROM strata LEFT JOIN guessed USING (cluster) GROUP BY stratum ORDER BY stratum""").fetchall()
    counted = {name: (int(count), float(unsolved)) for name, count, unsolved in rows}
    functions = {name: seen for name, seen in counted.items() if name not in (RANDOM, SUSPECT, BLIND, *NATURAL)}
    natural = {name: counted[name][0] for name in NATURAL if name in counted}
    looking = sum(count for count, _ in functions.values())
    whole = looking + sum(natural.values())
    left = 1 - config.random
    own = shares(functions, config, standing_for)
    weights = {name: left * share * looking / whole for name, share in own.items()}
    weights |= {name: left * rows / whole for name, rows in natural.items()}
    weights[RANDOM] = config.random
    return [Tier(weights), Tier({SUSPECT: 1.0})]


def _look_anyway(connection: Any) -> None:
    """Blind clusters as one kind of their own that takes part."""
    connection.execute(f"UPDATE profiled SET profile = '(blind)' WHERE profile = {text(BLIND)}")


def _take_turns(connection: Any, config: BalanceConfig) -> None:
    """The table `placed`, of all rows of `strata` but blind ones."""
    if not config.spread:
        connection.execute(
            f"CREATE OR REPLACE TABLE placed AS SELECT position, stratum, drawn AS turn FROM strata"
            f" WHERE stratum <> {text(BLIND)}"
        )
        return
    evened = 1 - config.answers
    connection.execute(f"""
        CREATE OR REPLACE TABLE placed AS
        WITH named AS (
            SELECT position, stratum, cluster, cell, drawn, CASE
                WHEN count(*) OVER (PARTITION BY stratum, cluster, answer) >= {RARE} THEN answer END AS answer
            FROM strata WHERE stratum <> {text(BLIND)}),
        celled AS (
            SELECT *, CASE WHEN answer IS NULL THEN
                (row_number() OVER (PARTITION BY stratum, cluster, answer, cell ORDER BY drawn) - drawn)
                / sqrt(count(*) OVER (PARTITION BY stratum, cluster, answer, cell)) ELSE drawn END AS round
            FROM named),
        placed AS (
            SELECT *, row_number() OVER (PARTITION BY stratum, cluster, answer ORDER BY round, drawn) AS place,
                count(*) OVER (PARTITION BY stratum, cluster, answer) AS alike,
                count(*) OVER (PARTITION BY stratum, cluster) AS near
            FROM celled),
        groups AS (SELECT DISTINCT stratum, cluster, answer, alike FROM placed),
        sums AS (SELECT stratum, cluster, sum(alike ** {evened!r}) AS evened FROM groups GROUP BY stratum, cluster)
        SELECT position, placed.stratum AS stratum,
            (place - drawn) / (sqrt(near) * alike ** {evened!r} / evened) AS turn
        FROM placed JOIN sums ON placed.stratum = sums.stratum AND placed.cluster IS NOT DISTINCT FROM sums.cluster""")
