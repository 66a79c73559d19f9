"""The policy `ccs`: all degrees of difficulty but the hardest, equally (coverage-centric, Zheng et al. 2210.15809).

1. The share `beta` of the rows whose score is highest is cut: the hardest rows are often wrong.
2. What is left is divided into `bins` ranges of the score of equal width.
3. Each bin has an equal part of the budget (the paper's algorithm 1: smallest bin first; what it can't fill goes to
   those that follow), and rows are drawn inside.

The paper's scores are taken while a model trains (AUM, forgetting, EL2N over epochs), and beta is tuned for each part
that is kept; here the score is the EL2N, or the loss, of the answer's tokens by the model before training. Rows whose
score is no finite number are left out.
"""

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vfl.select.choose.allocation import Tier


class CcsConfig(BaseModel):
    """How the policy `ccs` cuts and divides."""

    model_config = ConfigDict(extra="forbid")

    beta: float = Field(default=0.1, ge=0, lt=1, description="share of the rows that is cut, the hardest")
    bins: int = Field(default=50, ge=1, description="ranges of the score")
    score: Literal["el2n", "loss"] = Field(default="el2n", description="what is hard")


def ccs(connection: Any, pool: str, config: CcsConfig, *, drawn: str) -> list[Tier]:
    """Write the table `placed(position, stratum, turn)`; equal weights of its bins.

    Args:
        pool: view of the rows that may be chosen.
        drawn: the SQL of a number in (0, 1) for each row; the largest are taken, as by the policy random.
    """
    scored = f"(SELECT position, uid, {config.score}::DOUBLE AS score FROM {pool} WHERE isfinite({config.score}))"
    (rows,) = connection.execute(f"SELECT count(*) FROM {scored}").fetchone()
    cut = math.floor(config.beta * rows + 1e-9)
    connection.execute(f"""
        INSERT INTO placed
        WITH kept AS (
            SELECT * FROM {scored} QUALIFY row_number() OVER (ORDER BY score DESC, uid) > {cut}),
        ends AS (SELECT min(score) AS lowest, max(score) - min(score) AS width FROM kept)
        SELECT position, CASE WHEN width = 0 THEN 'bin 0' ELSE
            'bin ' || least(floor((score - lowest) / width * {config.bins}), {config.bins - 1})::INT END, -({drawn})
        FROM kept, ends""")
    bins = connection.execute("SELECT DISTINCT stratum FROM placed").fetchall()
    return [Tier({name: 1.0 for (name,) in bins})]
