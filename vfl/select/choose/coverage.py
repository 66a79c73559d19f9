"""What of the data a subset keeps: its answers, how its questions begin, and what the model does not answer yet."""

from typing import Any

from vfl.select.shards.score_folder import column

SHOWN = 12
"""Answers and openings in a manifest: the commonest."""
COMMON, LEAST = 0.005, 10
"""Share of the data and rows of an answer, from which on it is missed."""
LOST = 0.2
"""Times its share of the data, under which an answer is all but gone."""
ANSWERED, SHORT = 0.3, 16
"""Share of the rows with an image and an answer of at most so many tokens that the model answers, under which what its
answers depend on says little (experiments/selection); long answers are right as a whole with no model."""
Count = dict[str, Any]


def coverage(connection: Any) -> dict[str, Any]:
    """{"unsolved": shares, "answers": counts, "openings": counts}, in the data and in the table `chosen`.

    Empty lists where the scores are of a version that did not keep words.
    """
    (rows, chosen, unsolved, chosen_unsolved) = connection.execute("""
        SELECT count(*), count(chosen.position), count(*) FILTER (NOT solved),
            count(chosen.position) FILTER (NOT solved)
        FROM classed LEFT JOIN chosen USING (position)""").fetchone()
    there = {name for name, *_ in connection.execute("DESCRIBE classed").fetchall()}
    told = {name: _commonest(connection, name) if name in there else [] for name in ("answer", "opening")}
    return {
        "rows": int(rows),
        "chosen": int(chosen),
        "unsolved": {"data": unsolved / max(rows, 1), "subset": chosen_unsolved / max(chosen, 1)},
        "answers": told["answer"],
        "openings": told["opening"],
    }


def lost_answers(connection: Any, found: dict[str, Any]) -> list[str]:
    """A line for each common answer that the subset all but lacks."""
    if not found["answers"]:
        return []
    rows, chosen = found["rows"], found["chosen"]
    lost = connection.execute(f"""
        SELECT answer, count(*) AS rows, count(chosen.position) AS taken
        FROM classed LEFT JOIN chosen USING (position) WHERE answer IS NOT NULL GROUP BY answer
        HAVING rows >= greatest({LEAST}, {COMMON} * {rows}) AND taken / {max(chosen, 1)} < {LOST} * rows / {rows}
            AND rows * {chosen} / {rows} >= 2
        ORDER BY rows DESC, answer LIMIT {SHOWN}""").fetchall()
    return [
        f"The answer {answer!r} is {count:,} rows of the data ({100 * count / rows:.1f} %) and {taken:,} of the subset"
        f" ({100 * taken / max(chosen, 1):.1f} %): a model that is trained on it may no longer give it."
        for answer, count, taken in lost
    ]


def little_answered(connection: Any) -> list[str]:
    """A line for the policy `balanced` where the model answers few of the rows that it asks about."""
    rows, short, share = connection.execute(f"""
        SELECT count(*), count(*) FILTER (answer_tokens <= {SHORT}), avg(solved::INT) FILTER (answer_tokens <= {SHORT})
        FROM classed WHERE kind = 'vision'""").fetchone()
    if 2 * short < rows or not short or share >= ANSWERED:
        return []
    return [
        f"The model answers {100 * share:.0f} % of the rows with short answers. Where it answered 7 to 21 %, the policy"
        " balanced was mostly level with random in one epoch: --policy random costs nothing."
    ]


def _commonest(connection: Any, name: str) -> list[Count]:
    named = column(name)
    rows = connection.execute(f"""
        SELECT {named}, count(*), count(chosen.position)
        FROM classed LEFT JOIN chosen USING (position) WHERE {named} IS NOT NULL
        GROUP BY {named} ORDER BY count(*) DESC, {named} LIMIT {SHOWN}""").fetchall()
    return [{"text": said, "rows": int(count), "chosen": int(taken)} for said, count, taken in rows]
