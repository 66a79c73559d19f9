"""What a subset keeps of the data, what each stage took away, and the rows that were next in line."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vfl.errors import InputError
from vfl.select.choose.coverage import coverage
from vfl.select.choose.filtering import Choice, ChoiceConfig, choose
from vfl.select.shards.score_folder import ScoreFolder

EACH_CLASS = 4
"""Beginnings of questions that are shown of a class."""
MOST_NEXT, MOST_SUSPECTS = 6, 6


@dataclass(frozen=True)
class Said:
    """An answer, or how questions begin: how many rows of all and of the chosen, and their shares in per cent."""

    text: str
    rows: int
    chosen: int
    share: float
    chosen_share: float


@dataclass(frozen=True)
class Kept:
    """`answers` are the commonest of all data, `openings` those of each class; `unsolved` in per cent."""

    answers: list[Said]
    openings: dict[str, list[Said]]
    unsolved: float
    chosen_unsolved: float


@dataclass(frozen=True)
class Again:
    """The choice made once more: what it left out, which rows would have been next, which answers seem wrong."""

    choice: Choice
    next_in_line: list[int]
    suspects: list[int]
    suspects_left: int


def kept(connection: Any) -> Kept:
    """What the table `chosen` keeps of the view `classed`."""
    covered = coverage(connection)
    rows, chosen = covered["rows"], covered["chosen"]
    answers = [_said(one["text"], one["rows"], one["chosen"], rows, chosen) for one in covered["answers"]]
    shares = covered["unsolved"]
    return Kept(answers, _openings(connection), 100 * shares["data"], 100 * shares["subset"])


def _openings(connection: Any) -> dict[str, list[Said]]:
    if "opening" not in {name for name, *_ in connection.execute("DESCRIBE classed").fetchall()}:
        return {}  # scores of a version that did not keep words
    counted = connection.execute(f"""
        WITH said AS (
            SELECT class, opening, count(*) AS rows, count(chosen.position) AS taken
            FROM classed LEFT JOIN chosen USING (position) WHERE opening <> '' GROUP BY class, opening)
        SELECT class, opening, rows, taken, (sum(rows) OVER of_class)::BIGINT, (sum(taken) OVER of_class)::BIGINT
        FROM said WINDOW of_class AS (PARTITION BY class)
        QUALIFY row_number() OVER (PARTITION BY class ORDER BY rows DESC, opening) <= {EACH_CLASS}
        ORDER BY class, rows DESC, opening""").fetchall()
    found: dict[str, list[Said]] = {}
    for name, opening, *counts in counted:
        found.setdefault(name, []).append(_said(opening, *counts))
    return found


def _said(said: str, rows: int, chosen: int, of_rows: int, of_chosen: int) -> Said:
    return Said(said, rows, chosen, 100 * rows / max(of_rows, 1), 100 * chosen / max(of_chosen, 1))


def chosen_again(connection: Any, folder: ScoreFolder, config: ChoiceConfig) -> Again | None:
    """Choose as the subset was chosen, to see what came close; None where these scores no longer allow it."""
    try:
        choice = choose(connection, folder, config)
    except InputError:
        return None
    following = connection.execute(f"""
        SELECT position FROM (
            SELECT position, stratum, row_number() OVER (PARTITION BY stratum ORDER BY rank) AS place
            FROM ranked ANTI JOIN chosen USING (position)
            WHERE stratum NOT LIKE '(%' AND stratum IN (SELECT stratum FROM ranked SEMI JOIN chosen USING (position)))
        ORDER BY place, stratum LIMIT {MOST_NEXT}""").fetchall()
    suspects: list[int] = []
    left = 0
    if choice.balance is not None:
        (left,) = connection.execute("SELECT count(*) FROM suspect ANTI JOIN chosen USING (position)").fetchone()
        suspects = [
            position
            for (position,) in connection.execute(
                "SELECT position FROM suspect ANTI JOIN chosen USING (position) JOIN classed USING (position)"
                f" ORDER BY loss DESC, position LIMIT {MOST_SUSPECTS}"
            ).fetchall()
        ]
    return Again(choice, [position for (position,) in following], suspects, int(left))


def stages(folder: ScoreFolder, manifest: Mapping[str, Any], again: Again | None) -> list[tuple[str, int | None, int]]:
    """(stage, rows it took away, rows left after it), from all rows of the data to the subset."""
    scored = manifest.get("scored")
    if scored is None:
        return []
    data = folder.manifest.get("counts", {}).get("rows", scored)
    out = manifest.get("left_out", {})
    balanced = manifest.get("balance", {}).get("left_out", {})
    taken = [
        ("could not be scored", data - scored),
        ("repeats", out.get("duplicates", 0)),
        ("image like a better row’s", out.get("alike", 0)),
        ("answered without looking at the image (whole clusters)", balanced.get("blind", 0)),
        ("answer is probably wrong", again.suspects_left if again else balanced.get("suspects", 0)),
    ]
    rows: list[tuple[str, int | None, int]] = [("rows of the data", None, data)]
    left = data
    for stage, count in taken:
        if count:
            left -= count
            rows.append((stage, count, left))
    over = left - manifest["rows"]
    rows.append(("beyond the budget, or of a class that takes no part", over, manifest["rows"]))
    return rows
