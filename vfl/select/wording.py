"""What a row's words say, in little space: terms of its questions, how they open, and its answer.

The terms are hashes of words and of pairs of them, so that whoever selects can weight them by how rare they are in all
of the data (TF-IDF) without having read its text.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

from vfl.data import Message

TERMS = 2**16
"""Numbers that terms hash to."""
MOST_TERMS = 128
"""Terms kept of a row: the first ones."""
LONGEST = 40
"""Letters of an answer that are kept whole; of a longer one the beginning and a hash."""
OPENING = 3
_WORD = re.compile(r"\w+")
_SPACE = re.compile(r"\s+")


def question_terms(messages: Sequence[Message]) -> list[int]:
    """The different terms of all that is asked, ascending: words and pairs of neighbours, numbers taken as alike."""
    terms: dict[str, None] = {}
    for message in messages:
        if message["role"] != "user":
            continue
        words = ["0" if word.isdigit() else word for word in _WORD.findall(_plain(message))]
        terms |= dict.fromkeys([*words, *map(" ".join, pairwise(words))])
    return sorted({_hash(term) for term in list(terms)[:MOST_TERMS]})


def opening(messages: Sequence[Message]) -> str:
    """The first words of the first question."""
    asked = next((_plain(message) for message in messages if message["role"] == "user"), "")
    return " ".join(_WORD.findall(asked)[:OPENING])


def answer(messages: Sequence[Message]) -> str:
    """All answers as one text, letter case and spaces aside."""
    told = " | ".join(_plain(message) for message in messages if message["role"] == "assistant")
    if len(told) <= LONGEST:
        return told
    digest = hashlib.blake2b(told.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{told[: LONGEST - 10]} {digest}"


def _plain(message: Message) -> str:
    told = " ".join(part["text"] for part in message["content"] if part["type"] == "text")
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", told).casefold()).strip()


def _hash(term: str) -> int:
    digest = hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=2).digest()
    return int.from_bytes(digest, "big")
