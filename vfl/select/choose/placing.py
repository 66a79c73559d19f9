"""Policies that look at all rows together: each writes the table `placed(position, stratum, turn)`.

Rows of a stratum are taken by turn, the lowest first; rows that are not placed are left out.
"""

from typing import Any

from pydantic import Field

from vfl.select.choose.allocation import Tier
from vfl.select.choose.balance import Balance, BalanceConfig, balance
from vfl.select.choose.ccs import CcsConfig, ccs
from vfl.select.choose.coincide import CoincideConfig, coincide
from vfl.select.choose.policies import PolicyConfig, uniform
from vfl.select.choose.prism import prism
from vfl.select.choose.semdedup import SemdedupConfig, semdedup
from vfl.select.choose.states import STATES
from vfl.select.shards.score_folder import ScoreFolder

POOL = "pool"


class PlacingConfig(PolicyConfig):
    """Settings of policies that look at all rows together."""

    balance: BalanceConfig = Field(default=BalanceConfig(), description="of the policy balanced")
    coincide: CoincideConfig = Field(default=CoincideConfig(), description="of the policy coincide")
    ccs: CcsConfig = Field(default=CcsConfig(), description="of the policy ccs")
    semdedup: SemdedupConfig = Field(default=SemdedupConfig(), description="of the policy semdedup")


def place(
    connection: Any, folder: ScoreFolder, config: PlacingConfig, *, limit: int, whole: int
) -> tuple[list[Tier], Balance | None]:
    """The table `placed` of one of `PLACED`, from the views `classed` and `pool`; the weights of its strata.

    Args:
        limit: what the chosen rows may cost together.
        whole: what all rows cost.

    Raises:
        InputError: the scores lack what the policy looks at.
    """
    connection.execute("CREATE OR REPLACE TABLE placed (position BIGINT, stratum VARCHAR, turn DOUBLE)")
    drawn, seed = uniform(config.seed), config.seed
    match config.policy:
        case "balanced":
            part = min(1.0, limit / whole) if whole else 1.0
            filled = balance(connection, folder, config.balance, part=part, drawn=drawn, seed=seed)
            return filled.tiers, filled
        case "ccs":
            return ccs(connection, POOL, config.ccs, drawn=drawn), None
    folder.check_columns(connection, STATES)
    # read several times, and the view is slow to read; in one order, so that sums round alike
    columns = ", ".join(("position", "uid", "kind", "cost", *STATES))
    connection.execute(f"CREATE OR REPLACE TABLE described AS SELECT {columns} FROM {POOL} ORDER BY position")
    if connection.execute("SELECT count(*) FROM described").fetchone() == (0,):
        return [], None
    match config.policy:
        case "coincide":
            return coincide(connection, "described", config.coincide, limit=limit, seed=seed), None
        case "prism":
            return prism(connection, "described", drawn=drawn), None
        case _:
            return semdedup(connection, "described", config.semdedup, seed=seed), None
