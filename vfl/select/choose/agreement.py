"""How much a selection agrees with what simpler policies would have chosen from the same rows to the same budget."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vfl.errors import InputError
from vfl.select.choose.filtering import ChoiceConfig, choose
from vfl.select.choose.policies import BASELINES, MEASURES, Policy
from vfl.select.shards.score_folder import ScoreFolder

SAMPLE = 100_000
"""Rows at most that rank correlations are taken over."""


@dataclass(frozen=True)
class Agreement:
    """`overlap` is the share of the selection's rows that the policy chooses, too; `expected` that of a random choice.

    `correlation` is Spearman's between the selection's score and what the policy orders rows by, over rows with both.
    """

    policy: str
    rows: int
    overlap: float
    expected: float
    correlation: float | None


def agreements(
    connection: Any, folder: ScoreFolder, config: ChoiceConfig, policies: Sequence[Policy] = BASELINES
) -> list[Agreement]:
    """The agreement of the rows in the table `chosen` with each policy's; leaves other rows there.

    Args:
        config: the selection's settings: budget, classes and duplicates hold for all.
    """
    connection.execute("CREATE OR REPLACE TABLE compared AS SELECT position FROM chosen")
    (size,) = connection.execute("SELECT count(*) FROM compared").fetchone()
    if not size:
        return []
    correlation = _correlations(connection)
    found = []
    for policy in policies:
        other = config.model_copy(update={"policy": policy, "shares": "equal", "diversity": None})
        try:
            choice = choose(connection, folder, other)
        except InputError:  # a budget below this policy's first row
            continue
        (shared,) = connection.execute("SELECT count(*) FROM chosen SEMI JOIN compared USING (position)").fetchone()
        found.append(
            Agreement(policy, choice.rows, shared / size, choice.rows / choice.scored, correlation.get(policy))
        )
    return found


def _correlations(connection: Any) -> dict[str, float]:
    """Spearman's correlation of `score` with each baseline's measure, on an even sample of the rows."""
    import numpy as np
    from scipy.stats import spearmanr

    columns = ", ".join(f"{column}::DOUBLE AS {column}" for column in MEASURES.values())
    rows = connection.execute(f"""
        SELECT score::DOUBLE AS score, {columns} FROM classed WHERE score IS NOT NULL
        ORDER BY md5_number_lower(uid) LIMIT {SAMPLE}""").fetchnumpy()
    score = np.ma.filled(rows["score"], np.nan)
    found = {}
    for policy, column in MEASURES.items():
        values = np.ma.filled(rows[column], np.nan)
        there = np.isfinite(score) & np.isfinite(values)
        if there.sum() > 2 and len(set(score[there])) > 1 and len(set(values[there])) > 1:
            found[policy] = float(spearmanr(score[there], values[there]).statistic)
    return found
