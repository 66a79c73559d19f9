"""Sample cards: rows that show what a class holds, with their image, question, answer and drops."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vfl.data import BadRow, Sample
from vfl.errors import InputError
from vfl.report.thumbnail import data_uri, shrunk
from vfl.report.words import shortened
from vfl.select.shards.score_folder import column, text

MOST_IMAGES = 3
LONGEST = 280
EACH = 3


@dataclass(frozen=True)
class CardRow:
    """A scored row as a card shows it: (function, drop in accuracy, drop in log-probability, standardised drop)."""

    uid: str
    cls: str
    solved: bool | None
    margin: float | None
    source: str | None
    chosen: bool
    drops: list[tuple[str, float | None, float | None, float | None]]
    no_image: tuple[float | None, float | None]


@dataclass(frozen=True)
class Card:
    row: CardRow
    question: str
    answer: str
    images: list[str]  # data URIs
    more_images: int


@dataclass(frozen=True)
class CardGroup:
    title: str
    rows: list[CardRow]


def card_groups(
    connection: Any, functions: tuple[str, ...], *, subset: bool, more: Mapping[str, list[int]] | None = None
) -> list[CardGroup]:
    """The rows to show: of each function's class the highest and lowest scores, blind rows, and `more` by position."""
    groups = []
    for title, positions in (more or {}).items():
        order = "CASE position " + " ".join(f"WHEN {place} THEN {n}" for n, place in enumerate(positions)) + " END"
        where = f"position IN ({', '.join(map(str, positions))})"
        groups.append(CardGroup(title, _rows(connection, functions, where, order, subset, len(positions))))
    for name in functions:
        for title, order in (("highest", "score DESC, score2 DESC NULLS LAST"), ("lowest", "score, score2 NULLS LAST")):
            rows = _rows(connection, functions, f"class = {text(name)}", order, subset)
            groups.append(CardGroup(f"{name}, {title} scores", rows))
    groups.append(
        CardGroup(
            "blind: right without the image",
            _rows(connection, functions, "class = 'blind'", "answer_prob DESC", subset),
        )
    )
    return [group for group in groups if group.rows]


def cards(groups: Iterable[CardGroup], samples: Iterable[Sample | BadRow]) -> dict[str, Card]:
    """The cards by uid, from one reading of the data, which ends when all are found."""
    wanted = {row.uid: row for group in groups for row in group.rows}
    drawn: dict[str, Card] = {}
    for sample in samples if wanted else ():
        if isinstance(sample, Sample) and sample.uid in wanted:
            drawn[sample.uid] = _card(wanted[sample.uid], sample)
            if len(drawn) == len(wanted):
                break
    return drawn


def _rows(
    connection: Any, functions: tuple[str, ...], where: str, order: str, subset: bool, most: int = EACH
) -> list[CardRow]:
    drops = [column(prefix + name) for name in functions for prefix in ("drop_", "logprob_drop_", "z_")]
    chosen = "position IN (SELECT position FROM chosen)" if subset else "false"
    query = f"""SELECT uid, class, solved, margin, source, {chosen}, no_image_accuracy, no_image_logprob_drop,
        {", ".join(drops)} FROM classed WHERE {where} ORDER BY {order}, uid LIMIT {most}"""
    rows = []
    for uid, cls, solved, margin, source, kept, bare, gap, *values in connection.execute(query).fetchall():
        each = [(name, *values[3 * n : 3 * n + 3]) for n, name in enumerate(functions)]
        rows.append(CardRow(uid, cls, solved, margin, source, bool(kept), each, (bare, gap)))
    return rows


def _card(row: CardRow, sample: Sample) -> Card:
    asked = "\n".join(_texts(sample, "user"))
    answered = "\n".join(_texts(sample, "assistant"))
    shown = [_thumbnail(image) for image in sample.images[:MOST_IMAGES]]
    return Card(
        row,
        shortened(asked, LONGEST),
        shortened(answered, LONGEST),
        [picture for picture in shown if picture],
        max(len(sample.images) - MOST_IMAGES, 0),
    )


def _texts(sample: Sample, role: str) -> Iterator[str]:
    for message in sample.messages:
        if message["role"] == role:
            yield " ".join(part["text"].strip() for part in message["content"] if part["type"] == "text")


def _thumbnail(ref: Any) -> str | None:
    """A small data URI; None for an image that can't be opened now, or is on the network."""
    if ref.url is not None:
        return None
    try:
        image = ref.open()
    except InputError:
        return None
    return data_uri(shrunk(image))
