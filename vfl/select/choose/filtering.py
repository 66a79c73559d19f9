"""Choose rows to a budget from stored scores: no model, seconds, bounded memory; many times from one scoring."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from vfl.data.reading import Data
from vfl.errors import InputError
from vfl.select.choose.allocation import take
from vfl.select.choose.balance import Balance
from vfl.select.choose.budgets import COSTS, FLOPS_PER_PARAMETER, Budget, parse
from vfl.select.choose.classes import ClassConfig, Spreads, create_view
from vfl.select.choose.duplicates import Duplicates, check_bits, find_alike, find_duplicates
from vfl.select.choose.perceptual import Images
from vfl.select.choose.placing import POOL, PlacingConfig, place
from vfl.select.choose.policies import PLACED, Ranking, ranking_of, tiers_of
from vfl.select.choose.token_weights import COLUMNS, may_teach
from vfl.select.shards.same_scores import size_notes
from vfl.select.shards.score_folder import MEMORY, ScoreFolder

logger = logging.getLogger(__name__)
CHUNK = 50_000


def _budget(value: Any) -> Any:
    if isinstance(value, (str, int, float)):
        parse(value)
    return value


class ChoiceConfig(PlacingConfig):
    """What is chosen from scores: a policy, a budget, and what is left out before."""

    budget: Annotated[str | int | float, BeforeValidator(_budget)]
    classes: ClassConfig = ClassConfig()
    duplicates: Duplicates = Field(default="keep", description="leave out repeated rows before the budget")
    near_bits: int = Field(default=4, description="of 64 bits of an image's hash, for near duplicates")
    diversity: int | None = Field(
        default=None, description="leave out a row whose image is within so many bits of a better row's of its class"
    )
    token_weights: float | None = Field(
        default=None, gt=0, description="weigh answer tokens: 1 from so many nats of change without the image, else 0"
    )
    parameters: int | None = Field(
        default=None, ge=1, description="of the model, for FLOPs; default: the scores' model"
    )
    flops_per_parameter: float = Field(default=FLOPS_PER_PARAMETER, gt=0, description="and token: 6, with LoRA about 4")
    memory: str = Field(default=MEMORY, description="most memory of duckdb")
    threads: int | None = Field(default=None, ge=1)


@dataclass(frozen=True)
class Choice:
    """What was chosen. The rows themselves are in the table `chosen(position)` of the connection.

    `counts` are rows by class, source and state, of all data and of the chosen.
    """

    rows: int
    spent: int
    limit: int
    unit: str
    scored: int
    duplicates: int
    alike: int
    spreads: Spreads
    balance: Balance | None = None
    notes: list[str] = field(default_factory=list)


def choose(connection: Any, folder: ScoreFolder, config: ChoiceConfig, data: Data | None = None) -> Choice:
    """Fill the budget; leaves the view `classed` and the table `chosen(position)` in the connection.

    Args:
        data: what was scored, to look at images where settings compare them; those looked at before need none.

    Raises:
        InputError: settings that don't fit the scores, or a budget below one row.
    """
    check_bits(config.near_bits, "near_bits")
    if config.diversity is not None:
        check_bits(config.diversity, "diversity")
    found = create_view(connection, folder, config.classes)
    ranking = ranking_of(config, folder.functions)
    where = ranking.where
    if config.token_weights is not None:
        folder.check_columns(connection, COLUMNS)
        where = f"({where}) AND {may_teach(config.token_weights)}"
    budget = parse(config.budget)
    (scored,) = connection.execute("SELECT count(*) FROM classed").fetchone()
    limit = budget.limit(scored, config.parameters or folder.parameters, config.flops_per_parameter)
    kind = config.duplicates
    if config.policy == "balanced" and kind == "keep" and "repeats" in config.balance.drop:
        kind = "exact"
    images = Images(folder.path, data)
    repeated = find_duplicates(connection, kind, config.near_bits, images)
    cost = COSTS[budget.unit]
    connection.execute(f"""
        CREATE OR REPLACE VIEW {POOL} AS SELECT *, coalesce({cost}, 0)::BIGINT AS cost
        FROM classed ANTI JOIN duplicate USING (position) WHERE {where}""")
    tiers, filled = None, None
    if config.policy in PLACED:
        (whole,) = connection.execute(f"SELECT sum(coalesce({cost}, 0))::BIGINT FROM classed").fetchone()
        tiers, filled = place(connection, folder, config, limit=limit, whole=whole or 0)
    alike = _rank(connection, config, ranking, images)
    strata = {
        name: (rows, cost, rank, before)
        for name, rows, cost, rank, before in connection.execute(
            "SELECT stratum, count(*), sum(cost)::BIGINT, min(rank), min(total - cost) FROM ranked GROUP BY stratum"
        ).fetchall()
    }

    def prefix(name: str, most: float) -> tuple[int, int]:
        before = strata[name][3]
        count, cost = connection.execute(
            "SELECT count(*), coalesce(max(total) - ?, 0)::BIGINT FROM ranked WHERE stratum = ? AND total - ? <= ?",
            [before, name, before, most],
        ).fetchone()
        return int(count), int(cost)

    totals = {name: cost for name, (_, cost, _, _) in strata.items()}
    rows_of = {name: rows for name, (rows, *_) in strata.items()}
    if tiers is None:
        tiers = tiers_of(config, folder.functions, rows_of, classes=ranking.classes, standing_for=folder.standing_for)
    taken = take(limit, totals, tiers, prefix)
    chosen = [(strata[name][2], strata[name][2] + count - 1) for name, count in taken.items() if count]
    if not chosen:
        raise InputError(_why_nothing(budget, limit, totals))
    spans = " OR ".join(f"rank BETWEEN {first} AND {last}" for first, last in chosen)
    connection.execute(f"CREATE OR REPLACE TABLE chosen AS SELECT position, cost FROM ranked WHERE {spans}")
    rows, spent = connection.execute("SELECT count(*), sum(cost)::BIGINT FROM chosen").fetchone()
    result = Choice(int(rows), int(spent), limit, _unit(budget), scored, repeated, alike, found, filled)
    result.notes.extend(size_notes(folder.manifest))
    if sum(totals.values()) < limit:
        more = "" if config.policy in PLACED else " `include` lets other classes take part, such as blind."
        result.notes.append(
            f"The budget is {limit:,} {result.unit}, but all rows that may be chosen come to"
            f" {sum(totals.values()):,}: all of them were.{more}"
        )
    return result


def _rank(connection: Any, config: ChoiceConfig, ranking: Ranking, images: Images) -> int:
    """The table `ranked` (position, stratum, cost, rank, total), best first in each stratum; both run on over strata.

    Sorted once by duckdb's external sort; the running number and total then need no more memory.
    """
    rows = POOL
    if config.policy in PLACED:
        rows = f"({POOL} JOIN (SELECT position, stratum AS placed_as, turn FROM placed) USING (position))"
    keys = ", ".join(f"key{n} DESC NULLS LAST" for n in range(len(ranking.keys)))
    named = ", ".join(f"{key} AS key{n}" for n, key in enumerate(ranking.keys))
    connection.execute(f"""
        CREATE OR REPLACE TABLE sorted AS SELECT position, stratum, cost FROM (
            SELECT position, uid, {ranking.stratum} AS stratum, cost, {named} FROM {rows})
        ORDER BY stratum, {keys}, uid""")
    alike, left = 0, "sorted"
    if config.diversity is not None:
        ordered = "(SELECT position, stratum, rowid AS place FROM sorted)"
        alike = find_alike(connection, config.diversity, ordered, images)
        left = "(SELECT * FROM sorted WHERE rowid NOT IN (SELECT place FROM close))"
    connection.execute(f"""
        CREATE OR REPLACE TABLE ranked AS
        SELECT *, row_number() OVER () AS rank, (sum(cost) OVER (ROWS UNBOUNDED PRECEDING))::BIGINT AS total
        FROM {left}""")
    connection.execute("DROP TABLE sorted")
    return alike


def chosen_rows(connection: Any, columns: str = "*") -> Iterator[Any]:
    """The chosen rows of the view `classed` in the order of the data, as Arrow tables of at most CHUNK rows.

    Piece by piece rather than sorted as a whole: a sort of wide rows takes far more memory than its result, and scores
    lie nearly in order, so that few of their row groups are read twice.
    """
    ends = connection.execute(f"""
        SELECT position FROM (SELECT position, row_number() OVER (ORDER BY position) AS number, count(*) OVER () AS rows
            FROM chosen) WHERE number % {CHUNK} = 0 OR number = rows ORDER BY position""").fetchall()
    last = -1
    for (end,) in ends:
        span = f"position > {last} AND position <= {end}"
        yield connection.sql(f"""
            SELECT {columns} FROM (SELECT * FROM classed WHERE {span})
            SEMI JOIN (SELECT position FROM chosen WHERE {span}) USING (position) ORDER BY position""").to_arrow_table()
        last = end


def chosen_uids(connection: Any) -> Iterator[str]:
    """The uids of the chosen rows in the order of the data, few in memory at a time."""
    for rows in chosen_rows(connection, "uid"):
        yield from rows["uid"].to_pylist()


def _unit(budget: Budget) -> str:
    return {"share": "rows", "FLOPs": "tokens"}.get(budget.unit, budget.unit)


def _why_nothing(budget: Budget, limit: int, totals: dict[str, int]) -> str:
    if not totals:
        return (
            "No row may be chosen: all are in classes that are left out. `include` lets such classes take part, for"
            " example blind."
        )
    return f"The budget of {limit:,} {_unit(budget)} holds no row. Give more."
