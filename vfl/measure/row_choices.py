"""What a row's answer chooses from: the column `choices`, as a list, with letters, or with labels beside the texts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vfl.errors import InputError
from vfl.measure.row_boxes import is_blank, is_number, shortened
from vfl.probes import match

CHOICES = "choices"


@dataclass(frozen=True)
class Choices:
    """Different texts, and what each is called where the row says it ("A")."""

    texts: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)


def choices_of(row: Mapping[str, Any]) -> Choices:
    """The column `choices`; none where the row has no such column.

    Read are ["a dog", "a cat"], {"A": "a dog", "B": "a cat"} and {"label": ["A", "B"], "text": ["a dog", "a cat"]};
    numbers are their own texts.

    Raises:
        InputError: for anything else, and for texts that repeat.
    """
    given = row.get(CHOICES)
    if is_blank(given):
        return Choices()
    labels: Any = []
    texts = given
    if isinstance(given, Mapping):
        columns = given.keys() == {"label", "text"}
        labels, texts = (given["label"], given["text"]) if columns else (list(given), list(given.values()))
    written, called = _written(texts), _written(labels)
    if not written or "" in written or len(set(written)) != len(written) or (called and len(called) != len(written)):
        raise InputError(
            f"the column {CHOICES} holds {shortened(given)}; expected a list of different texts, such as "
            '["a dog", "a cat"], or texts by letter, such as {"A": "a dog", "B": "a cat"}.'
        )
    return Choices(written, called)


def chosen_from(choices: Choices, question: str, expected: str) -> tuple[list[str], str]:
    """The answers that are told apart, and the right one among them.

    Where the question lists the choices by letters, and the answer is one, these are told apart: no texts are returned.
    Where the row alone says which letter stands for which text, the texts are.

    Raises:
        InputError: where an answer is a letter that nothing gives a meaning.
    """
    if match.are_letters(choices.texts):
        return choices.texts, expected
    letter = expected.strip(" .()")
    if expected in choices.texts or not (len(letter) == 1 and letter.isupper()):
        return choices.texts, expected
    listed = match.listed_letters(question)
    if len(listed) == len(choices.texts):
        return [], expected
    if not listed and letter in choices.labels:
        return choices.texts, choices.texts[choices.labels.index(letter)]
    raise InputError(
        f"the answer {expected!r} is a letter, the column {CHOICES} holds {len(choices.texts)} texts, and the question "
        f"lists {len(listed)} letters. Write the choices into the question as lines such as "
        f'"A. {choices.texts[0]}", or give the answer as one of the texts.'
    )


def _written(values: Any) -> list[str]:
    """Texts of a list, "" for what is none."""
    listed = values if isinstance(values, list) else []
    return [value.strip() if isinstance(value, str) else f"{value:g}" if is_number(value) else "" for value in listed]
