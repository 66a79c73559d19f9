"""How many rows of which class and source there are, in all of the data and among the chosen."""

from typing import Any

from vfl.select.choose.policies import NO_SOURCE
from vfl.select.shards.score_folder import text

MOST_SOURCES = 1_000
Counts = dict[str, dict[str, dict[str, int]]]


def counts_of(connection: Any) -> Counts:
    """{"class": {name: counts}, "source": {name: counts}}, the largest first.

    Counts are of rows, of unsolved rows, of answer tokens and of all tokens, in all scored data and (chosen_...) among
    the rows in the table `chosen`. Of very many sources the smallest are left out.
    """
    source = f"coalesce(source, {text(NO_SOURCE)})"
    return {"class": _counts(connection, "class"), "source": _counts(connection, source)}


def _counts(connection: Any, by: str) -> dict[str, dict[str, int]]:
    sums = {
        "rows": "1",
        "unsolved": "coalesce((NOT solved)::INT, 0)",
        "answer_tokens": "coalesce(answer_tokens, 0)",
        "tokens": "coalesce(text_tokens + image_tokens, 0)",
    }
    parts = [f"sum({one})::BIGINT" for one in sums.values()]
    parts += [f"coalesce(sum({one}) FILTER (chosen.position IS NOT NULL), 0)::BIGINT" for one in sums.values()]
    names = [*sums, *(f"chosen_{name}" for name in sums)]
    rows = connection.execute(f"""
        SELECT {by} AS name, {", ".join(parts)} FROM classed LEFT JOIN chosen USING (position)
        GROUP BY name ORDER BY sum(1) DESC, name LIMIT {MOST_SOURCES}""").fetchall()
    return {name: dict(zip(names, values, strict=True)) for name, *values in rows}
