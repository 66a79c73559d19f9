"""When two answers are the same, for each match kind of a probe pair.

An answer is first read: `read` gives a value that can be compared, or None for an answer that cannot be parsed. Two
answers are the same when both can be read and the values agree: an unparsable answer is *changed* and *not followed*.

    text    casefolded words (anything separates but letters, digits, and signs as in "C++", "A+", "-5"). With
            `candidates` (the pair's choices, or its two expected answers), an answer that holds exactly one candidate
            as a contiguous run of words reads as that candidate: 'The text reads "HOUSE"' is HOUSE, "houses" is not,
            "house or mouse" is neither of the two. A candidate of one letter is none beside another lone letter: "R P"
            is not "P"
    letter  the capital letter of a choice (of `candidates`, by default any), where the answer names one: after "answer
            is" and its like, at the start ("B", "B.", "B) a dog"), or in brackets or quotes. A letter inside of prose
            is none ("It is A cat", "A cat"), and two of them are none
    number  the first integer or number word, up to ninety-nine; "none" and "no cups" are 0, "1 row of 3 cups" is 3
    yesno   the first word that is "yes" or "no" (or "yeah", "yep", "nope")
    box     "[x0, y0, x1, y1]" in pixels; the same where intersection over union is above .5
    point   "[x, y]" in pixels; the same where both lie in `box`, or, if no box is known or neither lies in it, where
            they are within 5 % of the image's diagonal of each other

What a thinking model writes up to `</think>` is no answer: a block that stays open is unreadable. Full-width and other
compatibility forms of characters are their plain ones (NFKC).

Boxes and points come here in pixels: each model family's own way of writing them is read in vfl/models/boxes.py.
"""

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

MatchKind = Literal["text", "number", "yesno", "box", "point", "letter"]
Box = tuple[float, float, float, float]
Value = tuple[str, ...] | tuple[float, ...] | float | str

IOU_SAME = 0.5  # the paper's rule for grounding
POINT_SAME = 0.05  # of the image's diagonal

_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMBER_WORDS: dict[str, int] = {word: number for number, word in enumerate(_UNITS)} | {
    " ".join((tens, unit)) if ones else tens: 10 * (position + 2) + ones
    for position, tens in enumerate(_TENS)
    for ones, unit in enumerate(_UNITS[:10])
}
# "1,000" is one number, "3, 4" are two; digits inside a word ("3D") are none
_NUMBER = re.compile(
    r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w)|\b(?:"
    + "|".join(re.escape(word).replace(r"\ ", r"[\s\-]+") for word in sorted(NUMBER_WORDS, key=len, reverse=True))
    + r")\b"
)
# "no cups" counts nothing; "no idea" and "no fewer than 3" do not
_NO_COUNT = (
    "idea clue answer way doubt information more less fewer longer other need there it the i you we they that this"
)
_NONE = re.compile(r"\b(?:none|nothing|nobody|no one|no (?!(?:" + "|".join(_NO_COUNT.split()) + r")\b)\w+)")
_OF = re.compile(
    r"\s+(?:rows?|columns?|lines?|groups?|sets?|piles?|stacks?|pairs?|clusters?|bunch(?:es)?)\s+(?:of|with)\s+"
)
_SIGNS = re.compile(r"(?<=[^\W\d_])[+#]+(?![^\W_])|(?<![\w-])-(?=\d)")
_YES_NO = {"yes": "yes", "yeah": "yes", "yep": "yes", "yup": "yes", "no": "no", "nope": "no", "nah": "no"}
# A choice's letter: nothing of a word behind it, nor a word behind a letter that is one itself ("A cat", "I see")
_LETTER = r"([A-Z])(?![^\W_]|['’&+#]|-\w)(?!(?<=[AI])[ \t]+[^\W\d_A-Z])"
_SAYS = re.compile(
    r"(?i:\b(?:answer|option|choice|letter)(?:\s+(?:is|was|would\s+be|should\s+be|must\s+be))?(?:\s+(?:option|choice|letter))?)"
    r"[\s:=\"'“‘*_`(\[{$\\]*(?:(?:boxed|text)\{)?" + _LETTER
)
_BEGINS = re.compile(r"[\W_]*(?:(?i:boxed|text|answer)[{>])?" + _LETTER)
_IS_RIGHT = re.compile(r"[\W_]*([A-Z])\s+(?i:is\s+(?:the\s+)?(?:correct|right|answer|best))\b")
_ENCLOSED = re.compile(r"[(\[{<>\"'“‘*`]([A-Z])[)\]}<\"'”’*`]")
_LISTED = re.compile(r"(?:^|(?<=[\s(\[]))([A-Z])[.):\]](?=\s|$)", re.MULTILINE)
_ANOTHER = re.compile(r"[\W_]*(?:(?i:or|and|nor)\b|[,/&+])[\W_]*[A-Z](?!\w)")
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_THINK, _THOUGHT = "<think>", "</think>"
_COORDINATE = r"\s*(-?\d+(?:\.\d+)?)\s*"


def read(kind: MatchKind, answer: str, candidates: Sequence[str] = ()) -> Value | None:
    """The value of `answer` under `kind`, or None where it cannot be parsed."""
    answer = said(answer)
    if kind == "text":
        return _read_text(answer, candidates)
    if kind == "letter":
        return _read_letter(answer, candidates or _ALPHABET)
    if kind == "number":
        return _read_number(answer)
    if kind == "yesno":
        return next((_YES_NO[word] for word in words(answer) if word in _YES_NO), None)
    return _read_box(answer) if kind == "box" else _read_coordinates(answer, 2)


def same(
    kind: MatchKind,
    first: str,
    second: str,
    *,
    candidates: Sequence[str] = (),
    box: Box | None = None,
    image_size: tuple[int, int] | None = None,
) -> bool:
    """Whether two answers are the same under `kind`; False where either cannot be parsed.

    Args:
        candidates: for "text", the answers that are to be found inside a sentence (see the module's text); for
            "letter", those that there are.
        box: for "point", the box of the object asked for, in pixels.
        image_size: for "point", (width, height) in pixels; needed where `box` does not decide.
    """
    first, second = said(first), said(second)
    if kind == "box":
        boxes = _read_box(first), _read_box(second)
        return boxes[0] is not None and boxes[1] is not None and iou(boxes[0], boxes[1]) > IOU_SAME
    if kind == "point":
        points = _read_coordinates(first, 2), _read_coordinates(second, 2)
        return points[0] is not None and points[1] is not None and _same_point(points[0], points[1], box, image_size)
    value = read(kind, first, candidates)
    return value is not None and value == read(kind, second, candidates)


def said(text: str) -> str:
    """The answer without what a thinking model wrote before it; empty where its block stays open."""
    if _THOUGHT in text:
        return text.rpartition(_THOUGHT)[2].strip()
    return "" if is_thinking(text) else text


def is_thinking(text: str) -> bool:
    """Whether an answer ended inside a `<think>` block: it was cut off, and more tokens would be needed."""
    return _THINK in text and _THOUGHT not in text


def are_letters(candidates: Sequence[str]) -> bool:
    """Whether answers are told by the letter of a choice: all of several are single capitals."""
    return len(candidates) > 1 and all(candidate in _ALPHABET and len(candidate) == 1 for candidate in candidates)


def listed_letters(question: str) -> tuple[str, ...]:
    """The letters of the choices that a question lists ("A. here B. there", a line each or not), from A on; or none."""
    there = set(_LISTED.findall(unicodedata.normalize("NFKC", question)))
    listed = tuple(letter for number, letter in enumerate(_ALPHABET) if set(_ALPHABET[: number + 1]) <= there)
    return listed if len(listed) > 1 else ()


def words(text: str) -> tuple[str, ...]:
    """Casefolded words: letters, digits and combining marks (vowel signs of many scripts) stay, the rest separates.

    Signs that tell names and numbers apart stay too: "+" and "#" behind a letter, a minus before a number.
    """
    return tuple(word.casefold() for word in _written_words(text))


def _written_words(text: str) -> tuple[str, ...]:
    """Words as they are written."""
    text = unicodedata.normalize("NFKC", text)
    kept = {place for sign in _SIGNS.finditer(text) for place in range(*sign.span())}
    return tuple(
        "".join(c if i in kept or unicodedata.category(c)[0] in "LNM" else " " for i, c in enumerate(text)).split()
    )


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def _read_text(answer: str, candidates: Sequence[str]) -> tuple[str, ...] | None:
    written = _written_words(answer)
    spoken = tuple(word.casefold() for word in written)
    phrases = sorted({words(candidate) for candidate in candidates} - {()}, key=len, reverse=True)
    recognised: set[tuple[str, ...]] = set()
    position = 0
    while position < len(spoken):  # longest phrase first, so "dark red" is not also "red"
        phrase = next((p for p in phrases if spoken[position : position + len(p)] == p), None)
        if phrase and not _is_spelled(written, position, len(phrase)):
            recognised.add(phrase)
        position += len(phrase) if phrase else 1
    return recognised.pop() if len(recognised) == 1 else spoken or None


def _is_spelled(written: Sequence[str], position: int, length: int) -> bool:
    """Whether a word is one letter of several that stand alone ("R P"); in "It is a P" the "a" is an article."""
    if length > 1 or len(written[position]) > 1:
        return False
    before, after = written[:position], written[position + 1 :]
    article = before[-1:] == ("a",) and len(before) > 1 and len(before[-2]) > 1
    return any(len(word) == 1 and word.isalpha() for word in (*(() if article else before[-1:]), *after[:1]))


def _read_letter(answer: str, candidates: Sequence[str]) -> tuple[str, ...] | None:
    """A letter as it is written, so that it equals no word; an answer that names none is its words."""
    answer = unicodedata.normalize("NFKC", answer).strip()
    named = _IS_RIGHT.match(answer)
    stated = [match for match in _SAYS.finditer(answer) if match[1] in candidates]
    begins = _BEGINS.match(answer)
    enclosed = {letter for letter in _ENCLOSED.findall(answer) if letter in candidates}
    lists = len(set(_LISTED.findall(answer)) & set(candidates)) > 1
    if not named and stated:
        named = stated[-1]  # a reasoning may weigh some before
    elif not named and not lists:
        named = begins
    if named and named[1] in candidates:
        return None if _ANOTHER.match(answer, named.end(1)) else (named[1],)
    return (enclosed.pop(),) if len(enclosed) == 1 else words(answer) or None


def _read_number(answer: str) -> float | None:
    text = unicodedata.normalize("NFKC", answer).casefold()
    match, none = _NUMBER.search(text), _NONE.search(text)
    if none is not None and (match is None or none.start() <= match.start()):
        return 0.0
    if match is None:
        return None
    of = _OF.match(text, match.end())
    each = _NUMBER.match(text, of.end()) if of else None
    return _value(match.group()) * (_value(each.group()) if each else 1)


def _value(number: str) -> float:
    word = re.sub(r"[\s\-]+", " ", number)
    return float(NUMBER_WORDS[word]) if word in NUMBER_WORDS else float(number.replace(",", ""))


def _read_box(answer: str) -> tuple[float, ...] | None:
    box = _read_coordinates(answer, 4)
    return box if box and box[0] < box[2] and box[1] < box[3] else None


def _read_coordinates(answer: str, count: int) -> tuple[float, ...] | None:
    match = re.fullmatch(r"\s*\[" + ",".join([_COORDINATE] * count) + r"\]\s*", answer)
    return tuple(float(number) for number in match.groups()) if match else None


def _same_point(a: Sequence[float], b: Sequence[float], box: Box | None, image_size: tuple[int, int] | None) -> bool:
    inside = [box is not None and box[0] <= x <= box[2] and box[1] <= y <= box[3] for x, y in (a, b)]
    if any(inside):
        return all(inside)
    if image_size is None:
        raise ValueError("points outside a known box are compared by the image's diagonal: give image_size")
    return math.dist(a, b) <= POINT_SAME * math.hypot(*image_size)
