"""Rows whose answer is probably wrong, by two signs.

It is far less likely than the answers to like questions with the same answer. A wrong answer is one that the model
would not give, and so is a right one that it has yet to learn. Compared with the rows of its cluster that have the same
answer (with all of its cluster where these are few), only the former stands out, unless the model is wrong on most.

Or the image speaks against it: in a cluster where the image makes most answers likelier, it makes this one less likely.
That tells where the model reads what is asked and does not know yet how to say it, so that no answer is right as a
whole.
"""

from typing import Any

from vfl.select.shards.score_folder import text

FEW = 8
"""Rows with the same answer, under which a row is compared with all of its cluster."""
FAR = 5.0
"""Deviations (1.4826 x the median absolute one) above the median loss."""
LEAST = 1.0
"""Nats a token above the median loss."""
KNOWN = 0.25
"""Share of the rows a row is compared with that the model answers, under which it can't tell a mistake."""
AGAINST = 1.0
"""Nats a token by which the image makes an answer less likely."""
GAIN = 0.1
"""Share of a cluster's answer tokens that the image sets right, under which what it speaks against says nothing."""
MOST, MOST_AGAINST = 0.15, 0.25
"""Shares of a cluster that may be suspects by either sign: where more stand out, what stands out is no mistake."""


def find_suspects(connection: Any, against: float = AGAINST) -> int:
    """From `classed` and `profiled` a table `suspect(position)`; how many there are.

    Args:
        against: nats a token by which the image makes an answer less likely.
    """
    connection.execute(f"""
        CREATE OR REPLACE TABLE suspect AS
        WITH losses AS (
            SELECT position, cluster, loss::DOUBLE AS loss, coalesce(solved, false)::INT AS solved,
                coalesce(no_image_logprob_drop, 0)::DOUBLE AS helped,
                coalesce(accuracy - no_image_accuracy, 0) AS gained, CASE
                WHEN count(*) OVER (PARTITION BY cluster, answer) >= {FEW} THEN answer ELSE {text("")} END AS answer
            FROM classed JOIN profiled USING (position) WHERE isfinite(loss)),
        wide AS (
            SELECT cluster, median(loss) AS middle, avg(solved) AS known,
                median(helped) > 0 AND avg(gained) >= {GAIN} AS helpful
            FROM losses GROUP BY cluster),
        narrow AS (
            SELECT cluster, answer, median(loss) AS middle, avg(solved) AS known
            FROM losses WHERE answer <> {text("")} GROUP BY ALL),
        middles AS (
            SELECT position, cluster, losses.answer, loss, coalesce(narrow.middle, wide.middle) AS middle,
                coalesce(narrow.known, wide.known) AS known,
                helpful AND helped < -{against} AND loss - wide.middle > {LEAST} AS against
            FROM losses JOIN wide USING (cluster) LEFT JOIN narrow USING (cluster, answer)),
        deviations AS (
            SELECT cluster, answer, 1.4826 * median(abs(loss - middle)) + 0.05 AS deviation
            FROM middles GROUP BY ALL),
        judged AS (
            SELECT position, cluster, known, against, loss - middle AS above, (loss - middle) / deviation AS far
            FROM middles JOIN deviations USING (cluster, answer))
        SELECT position FROM judged
        QUALIFY against AND row_number() OVER (PARTITION BY cluster, against ORDER BY far DESC, position)
                <= {MOST_AGAINST} * count(*) OVER (PARTITION BY cluster)
            OR far > {FAR} AND above > {LEAST} AND known >= {KNOWN}
                AND row_number() OVER (PARTITION BY cluster ORDER BY far DESC, position)
                    <= {MOST} * count(*) OVER (PARTITION BY cluster)""")
    (count,) = connection.execute("SELECT count(*) FROM suspect").fetchone()
    return int(count)
