"""What the text alone gives: whether a cluster's answers need an image, by the model and by the data themselves.

A model that does not look at the image (its predictions stay when the image is taken away) may not need to, or may not
have learned to: a base that does not know a way of asking says the same whatever it sees, and just these rows have the
most to teach. Two things tell rows that need no image: the model is right without it, or rows that ask the same have
the same answer over different images.
"""

from dataclasses import dataclass
from typing import Any

from vfl.select.choose.duplicates import EXACT

LEAST = 20
"""Rows that share their question with others, under which the data say nothing about whether it needs an image."""


@dataclass(frozen=True)
class TextAlone:
    """Of a cluster, 0 to 1.

    known: the larger of two shares of its rows: of those that the model answers without the image, and of those whose
        answer is that of another row with the same question.
    decided: how far questions decide the answers beyond what one answer for all would (Cohen's kappa), 0 where too few
        rows share a question.
    """

    known: float
    decided: float


def text_alone(connection: Any, source: str) -> dict[int, TextAlone]:
    """What the text gives of each cluster in the table `clustered`.

    Rows with the same question, answer and image count once. Questions are the same if their terms and first words are:
    numbers further on are alike in terms, so that such questions may seem the same and their answers different, which
    counts as needing the image.

    Args:
        source: SQL of the rows with an image.
    """
    rows = connection.execute(f"""
        WITH asked AS (
            SELECT cluster, question_terms, opening, answer, coalesce(no_image_exact, false)::INT AS known,
                {EXACT} AS image_hash
            FROM {source} JOIN clustered USING (position)),
        once AS (SELECT DISTINCT cluster, question_terms, opening, answer, image_hash FROM asked),
        groups AS (
            SELECT cluster, answer, count(*) AS same,
                sum(count(*)) OVER (PARTITION BY cluster, question_terms, opening) AS alike
            FROM once GROUP BY cluster, question_terms, opening, answer),
        repeated AS (SELECT * FROM groups WHERE alike > 1),
        shared AS (
            SELECT cluster, sum(same * (same - 1) / (alike - 1)) / sum(same) AS agreeing
            FROM repeated GROUP BY cluster HAVING sum(same) >= {LEAST}),
        answers AS (SELECT cluster, sum(same) AS rows FROM repeated GROUP BY cluster, answer),
        usual AS (SELECT cluster, max(rows) / sum(rows) AS usual FROM answers GROUP BY cluster),
        answered AS (SELECT cluster, avg(known) AS known FROM asked GROUP BY cluster)
        SELECT cluster, known, coalesce(agreeing, 0), coalesce((agreeing - usual) / nullif(1 - usual, 0), 0)
        FROM answered LEFT JOIN shared USING (cluster) LEFT JOIN usual USING (cluster)""").fetchall()
    return {
        int(cluster): TextAlone(max(float(known), float(agreeing)), max(0.0, float(kappa)))
        for cluster, known, agreeing, kappa in rows
    }
