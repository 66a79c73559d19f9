"""What rows are about: clusters of alike questions, and the function that each cluster needs.

One row's effect is noisy, and an answer that the model gives without the image too shows none. A cluster's mean is not:
of all rows that ask alike, some move. So rows are clustered by the words of their questions and, more weakly, by their
effects; and a cluster belongs to the function that its predictions depend on most, compared with other clusters.

Effects are Jensen-Shannon distances (roots of the divergences `js_F`), which ask for no right answer.

Memory: k-means learns from a sample; all rows are then assigned a piece at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vfl.select.choose.clusters import PIECE, SAMPLE, insert, kmeans, vectors_of
from vfl.select.choose.text_alone import text_alone
from vfl.select.shards.score_folder import ScoreFolder, column, text
from vfl.select.wording import TERMS

By = Literal["both", "words", "effects"]
WORDS = 64
"""Dimensions of a question's words: TF-IDF by random directions."""
WEIGHT = 0.1
"""Of effects beside words. At 1 clusters part by answers rather than by what is asked."""
ROWS = 40
"""Of a cluster, at least and on average: the mean of a few rows is as noisy as they are."""
BLIND = 0.1
"""Mean distance between predictions with and without the image under which a cluster doesn't look."""
KNOWN = 0.7
"""Share of a cluster's answers that the text alone gives, from which on a cluster that doesn't look need not."""
DECIDED = 0.9
"""How far questions decide the answers, from which on a cluster has no use for images, whatever the model does."""
UNREAD = "unread"
"""Class of a cluster that doesn't look at the image and whose answers the text does not give."""
CERTAIN = 1.0
"""Standard errors between a cluster's first and second function, under which its rows decide one by one."""
CLEAR = 1e3
"""Certainty of an only function, and the most there is."""
STRONG = 2.0
"""Times that a row's effect of another function outweighs that of its mixed cluster's, to decide for itself."""
STEADY = 0.01
"""Added to a function's mean effect: functions that no cluster needs win nowhere."""
NEEDED = ("no_image_js", "question_state", "question_terms", "opening", "answer")


@dataclass(frozen=True)
class Cluster:
    """A cluster's class, its rows, each function's mean effect, that of no image, and how sure the class is.

    `certainty` is in standard errors between the first and the second function.
    """

    number: int
    rows: int
    name: str
    effects: dict[str, float]
    no_image: float
    certainty: float


def check_profiles(connection: Any, folder: ScoreFolder) -> None:
    """Raises InputError for scores of a version that did not record what rows are about."""
    folder.check_columns(connection, (*NEEDED, *(f"js_{name}" for name in folder.functions)))


def find_clusters(connection: Any, folder: ScoreFolder, *, by: By = "both", seed: int = 0) -> list[Cluster]:
    """The table `profiled(position, cluster, cell, profile)` of all rows with an image.

    A cell is one of another clustering, by the image's last states: rows of one cell look alike. The question's state
    is no part of it: it holds what the model is about to answer, and a wrong answer would make a row look rare.

    Args:
        by: what clusters are made of.
        seed: of k-means and its sample.
    """
    source = f"(SELECT * FROM {folder.table(connection)} WHERE kind = 'vision')"
    (count,) = connection.execute(f"SELECT count(*) FROM {source}").fetchone()
    connection.execute("CREATE OR REPLACE TABLE clustered (position BIGINT, cluster INTEGER, cell INTEGER)")
    if not count:
        connection.execute(
            "CREATE OR REPLACE TABLE profiled (position BIGINT, cluster INTEGER, cell INTEGER, profile VARCHAR)"
        )
        return []
    described = _Description(connection, source, folder.functions, count, by)
    order = f"md5_number_lower({text(f'{seed}:sample:')} || uid), uid"
    sample = f"(SELECT * FROM {source} ORDER BY {order} LIMIT {SAMPLE})"
    features, states = map(np.concatenate, zip(*(piece[1:] for piece in described.pieces(sample)), strict=True))
    scale = states.std(0) + 1e-6
    # no more kinds than there are questions: further ones would part rows by their answers' effects
    asked = features if by == "effects" else features[:, :WORDS]
    number = min(round((len(features) / 2) ** 0.5), len(features) // ROWS)
    kinds = kmeans(features, min(number, len(np.unique(asked.round(4), axis=0))), seed)
    cells = kmeans(states / scale, number, seed)
    for positions, features, states in described.pieces(source):
        assigned = {
            "position": positions,
            "cluster": kinds.predict(features).astype(np.int32),
            "cell": cells.predict(states / scale).astype(np.int32),
        }
        insert(connection, "clustered", assigned)
    return _classes(connection, source, folder.functions)


class _Description:
    """Rows as vectors: of their words and effects, and of their states."""

    def __init__(self, connection: Any, source: str, functions: tuple[str, ...], count: int, by: By) -> None:
        self.connection, self.functions, self.by = connection, functions, by
        self.frequency = np.zeros(TERMS)
        for term, rows in connection.execute(
            f"SELECT term, count(*) FROM (SELECT unnest(question_terms) AS term FROM {source}) GROUP BY term"
        ).fetchall():
            self.frequency[term] = rows
        self.rarity = (np.log((1 + count) / (1 + self.frequency)) + 1).astype(np.float32)
        self.directions = (np.random.default_rng(0).standard_normal((TERMS, WORDS)) / WORDS**0.5).astype(np.float32)

    def pieces(self, source: str) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(n,) positions, (n, features) and (n, states), PIECE rows at a time."""
        effects = ", ".join(f"sqrt({column(name)})::FLOAT AS {column(name)}" for name in self._effects())
        query = f"SELECT position, question_terms, image_state, {effects} FROM {source}"
        # a cursor of its own: pieces are inserted while this query runs
        for batch in self.connection.cursor().sql(query).to_arrow_reader(PIECE):
            positions = batch["position"].to_numpy()
            yield positions, self._features(batch), vectors_of(batch["image_state"])

    def _effects(self) -> list[str]:
        return [*(f"js_{name}" for name in self.functions), "no_image_js"]

    def _features(self, batch: Any) -> np.ndarray:
        parts = []
        if self.by != "effects":
            terms = batch["question_terms"]
            flat = terms.flatten().to_numpy()
            owner = np.repeat(np.arange(len(terms)), np.diff(terms.offsets.to_numpy()))
            words = np.zeros((len(terms), WORDS), np.float32)
            np.add.at(words, owner, self.directions[flat] * self.rarity[flat, None])
            parts.append(words / (np.linalg.norm(words, axis=1, keepdims=True) + 1e-6))
        if self.by != "words":
            effects = np.stack([np.nan_to_num(batch[name].to_numpy(False)) for name in self._effects()], axis=1)
            parts.append(effects * (WEIGHT if self.by == "both" else 1.0))
        return np.hstack(parts).astype(np.float32)


def _classes(connection: Any, source: str, functions: tuple[str, ...]) -> list[Cluster]:
    names = [column(f"js_{name}") for name in functions]
    means = [f"avg(sqrt({name}))" for name in [*names, "no_image_js"]]
    # of the difference between two functions' effects, for its standard error
    pairs = [(a, b) for a in range(len(names)) for b in range(a + 1, len(names))]
    spreads = [f"coalesce(stddev_samp(sqrt({names[a]}) - sqrt({names[b]})), 0)" for a, b in pairs]
    rows = connection.execute(f"""
        SELECT cluster, count(*), {", ".join([*means, *spreads])}
        FROM {source} JOIN clustered USING (position) GROUP BY cluster ORDER BY cluster""").fetchall()
    effects = np.nan_to_num(np.array([row[2 : 2 + len(names)] for row in rows], dtype=float))
    usual = effects.mean(0) + STEADY
    by_text = text_alone(connection, source)
    clusters = []
    for (number, count, *values), own in zip(rows, effects, strict=True):
        no_image = float(values[len(names)] or 0.0)
        order = np.argsort(-own / usual, kind="stable")
        certainty = CLEAR
        if len(order) > 1:
            first, second = int(order[0]), int(order[1])
            spread = values[len(names) + 1 + pairs.index((min(first, second), max(first, second)))]
            # on the scale on which they were compared
            error = spread / usual[[first, second]].mean() / count**0.5 + 1e-9
            apart = own[first] / usual[first] - own[second] / usual[second]
            certainty = min(CLEAR, float(apart / error))
        name = functions[int(order[0])]
        if by_text[int(number)].decided >= DECIDED:
            name = "blind"
        elif no_image < BLIND:
            name = "blind" if by_text[int(number)].known >= KNOWN else UNREAD
        told = dict(zip(functions, own.tolist(), strict=True))
        clusters.append(Cluster(int(number), int(count), name, told, no_image, certainty))
    _write_classes(connection, clusters)
    usual_of = dict(zip(functions, usual.tolist(), strict=True))
    _write_kinds(connection, source, functions, usual_of)
    return clusters


def _write_classes(connection: Any, clusters: list[Cluster]) -> None:
    connection.execute("CREATE OR REPLACE TABLE clusters (cluster INTEGER, class VARCHAR, certain BOOLEAN)")
    told = [(one.number, one.name, one.name in ("blind", UNREAD) or one.certainty >= CERTAIN) for one in clusters]
    connection.executemany("INSERT INTO clusters VALUES (?, ?, ?)", told)


def _write_kinds(connection: Any, source: str, functions: tuple[str, ...], usual: dict[str, float]) -> None:
    """The table `profiled`: of a row its cluster's class, in a mixed cluster its own where that is plain."""
    ratios = [f"sqrt({column('js_' + name)}) / {usual[name]!r}::DOUBLE" for name in functions]
    best = f"greatest({', '.join(ratios)})"
    cases = " ".join(f"WHEN {one} = {best} THEN {text(name)}" for one, name in zip(ratios, functions, strict=True))
    kept = " ".join(f"WHEN class = {text(name)} THEN {one}" for one, name in zip(ratios, functions, strict=True))
    # a row that hardly moves has nothing to say against its cluster
    own = f"""CASE WHEN no_image_js < {BLIND**2!r} OR {best} < {STRONG} * (CASE {kept} ELSE 0 END) THEN class
        {cases} ELSE class END"""
    connection.execute(f"""
        CREATE OR REPLACE TABLE profiled AS
        SELECT position, cluster, cell, CASE WHEN certain THEN class ELSE {own} END AS profile
        FROM {source} JOIN clustered USING (position) JOIN clusters USING (cluster)""")
