"""A probe pair as a model family wants it asked, and its answers as probes are compared."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from vfl.engine.image_cache import ImageCache
from vfl.engine.joint_prefill import prefill_all
from vfl.errors import InputError
from vfl.models.encode import Encoded
from vfl.models.families import Family
from vfl.models.vlm import VLM
from vfl.probes import match
from vfl.probes.pair import Pair, Which

# Greedy answers end themselves; these only bound a model that rambles. Longer expected answers move the bound, in
# powers of two, so that questions with answers of similar length share a batch.
MAX_NEW_TOKENS = {"text": 16, "number": 8, "yesno": 4, "box": 40, "point": 24}
ROOM = 8  # tokens around an expected answer: "The text reads ..."


class Sizes(Protocol):
    """Image sizes that boxes are read with: an `Encoded` has them."""

    @property
    def image_sizes(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def model_sizes(self) -> tuple[tuple[int, int], ...]: ...


def question_of(vlm: VLM, pair: Pair) -> str:
    """The pair's question, with the family's instruction where it asks for a box or a point."""
    convention = vlm.family.boxes
    if pair.match == "box":
        return convention.box_prompt(pair.question, pair.label)
    if pair.match == "point":
        return convention.point_prompt(pair.question, pair.label)
    return pair.question


def expected_text(vlm: VLM, pair: Pair, answer: str, encoded: Sizes) -> str:
    """An expected answer as the model would write it, for its log-probability."""
    if pair.match not in ("box", "point"):
        return answer
    numbers = match.read(pair.match, answer)
    assert isinstance(numbers, tuple), f"{pair.id}: the suite's reader checks its answers"
    places = [float(number) for number in numbers]
    return vlm.family.boxes.format_answer(pair.match, places, encoded.image_sizes[0], encoded.model_sizes[0])


@dataclass(frozen=True)
class _AsGiven:
    """A pair's images as the file has them: a box is about as long on the resized ones."""

    image_sizes: tuple[tuple[int, int], ...]

    @property
    def model_sizes(self) -> tuple[tuple[int, int], ...]:
        return self.image_sizes


def answer_limit(kind: str, expected: Sequence[str], tokens: Callable[[str], Sized] = str.encode) -> int:
    """Most tokens of an answer: its kind's, and room for the longest one expected.

    A few Latin words fit their kind's limit, whatever a tokenizer makes of them; other scripts may have no spaces.

    Args:
        kind: a match kind; others count as text.
        expected: right answers, as the model would write them.
        tokens: of an answer; by default its bytes, of which a token holds one or more.
    """
    least = MAX_NEW_TOKENS.get(kind, MAX_NEW_TOKENS["text"])
    long = [answer for answer in expected if len(answer.split()) > least // 2 or _in_another_script(answer)]
    longest = max((len(tokens(answer)) for answer in long), default=0)
    return least if longest < least else 1 << (longest + ROOM - 1).bit_length()


def _in_another_script(answer: str) -> bool:
    return any(character.isalpha() and not character.isascii() for character in answer)


def token_limit(vlm: VLM, pair: Pair) -> int:
    """Most tokens of an answer to a pair: what it was limited to, else by what is expected on its images."""
    if pair.max_new_tokens is not None:
        return pair.max_new_tokens
    sizes = _AsGiven((pair.size,))
    expected = [expected_text(vlm, pair, answer, sizes) for answer in (pair.answer, pair.source_answer)]
    return answer_limit(pair.match, expected, vlm.answer_ids)


def is_cut(ids: Sequence[int], limit: int) -> bool:
    """Whether an answer's tokens (without an end token) came to no end within the limit."""
    return len(ids) >= limit


def cut_warning(shares: Mapping[str, float]) -> str:
    """Which answers were cut, and what to do about it."""
    listed = ", ".join(f"{share:.0%} of {name}" for name, share in shares.items())
    return (
        f"answers came to no end within the tokens that they may have ({listed}) and are judged by what is there: "
        "allow more with max_new_tokens (--max-new-tokens)."
    )


def first_tokens(vlm: VLM, spellings: Iterable[str]) -> list[int]:
    """Tokens that texts begin with, at the start of an answer and inside one, without word-boundary marks alone."""
    firsts = set()
    for spelling in {start + text for text in spellings for start in ("", " ")}:
        ids = vlm.answer_ids(spelling)
        # a word-boundary mark of its own ("▁", "Ġ") says nothing about the text
        named = [i for i, text in zip(ids, vlm.tokenizer.convert_ids_to_tokens(ids), strict=True) if text.strip("▁Ġ")]
        firsts.add((named or ids)[0])
    return sorted(firsts)


def likeliest_letter(vlm: VLM, letters: Sequence[str], logits: torch.Tensor) -> str:
    """The letter whose first token is likeliest; `logits` (vocabulary,), or probabilities, predict that token.

    Raises:
        InputError: where the tokenizer begins several letters with one token, so that they can't be told apart.
    """
    firsts = [first_tokens(vlm, [letter]) for letter in letters]
    if len({token for tokens in firsts for token in tokens}) < sum(map(len, firsts)):
        raise InputError(
            f"The letters {', '.join(letters)} begin with the same token in this tokenizer: logits can't tell them "
            "apart. Read the generated answers instead (letters: text)."
        )
    return letters[max(range(len(letters)), key=lambda at: float(logits[firsts[at]].max()))]


def read_answer(vlm: VLM, pair: Pair, text: str, encoded: Sizes) -> str:
    """A generated answer in the probes' form: boxes and points in pixels of the file, or marked as unreadable."""
    return in_pixels(vlm.family, pair.match, text, encoded)


def in_pixels(family: Family, kind: str, text: str, sizes: Sizes) -> str:
    """An answer whose box or point, as the family writes it, is in pixels of the file; answers of other kinds stay."""
    if kind not in ("box", "point"):
        return text
    text = match.said(text)
    # What the family's convention refuses (out of range, too many numbers) must not pass for pixels later.
    read = family.boxes.pixel_answer(kind, text, sizes.image_sizes[0], sizes.model_sizes[0])  # type: ignore[arg-type]
    return read or f"unreadable: {text}"


@dataclass(frozen=True)
class Asked:
    """One image of a pair, encoded with its question and prefilled."""

    encoded: Encoded
    image_cache: ImageCache


class Asker:
    """Asks pairs of one model; the image caches of the last few are kept for further questions on them."""

    def __init__(self, vlm: VLM, keep: int = 4) -> None:
        self.vlm = vlm
        self._keep = keep
        self._caches: OrderedDict[_Prefix, ImageCache] = OrderedDict()
        self._prompts: dict[tuple[str, Path], Encoded] = {}

    def ask(self, pair: Pair, which: Which) -> Asked:
        """Encode and prefill one image of a pair."""
        return self.ask_all(pair, [which])[0]

    def ask_all(self, pair: Pair, which: Sequence[Which]) -> list[Asked]:
        """Encode images of a pair, and prefill those that aren't kept, together where they can be."""
        return self.ask_images([(pair, image) for image in which])

    def ask_images(self, images: Sequence[tuple[Pair, Which]]) -> list[Asked]:
        """As `ask_all` for images of several pairs, each with its pair's question."""
        named = [(question_of(self.vlm, pair), pair.path(which)) for pair, which in images]
        prompts = [self._prompts.get(name) or self.vlm.ask(*name) for name in named]
        self._prompts = dict(zip(named, prompts, strict=True))  # a group's next target is asked with the same images
        keys = [_prefix(prompt) for prompt in prompts]
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._caches}
        caches = {key: self._caches[key] for key in keys if key not in missing}
        caches |= zip(missing, prefill_all(self.vlm, list(missing.values())), strict=True)
        for key in keys:
            self._caches[key] = caches[key]
            self._caches.move_to_end(key)
        while len(self._caches) > max(self._keep, len(caches)):  # a group's images serve its next target
            self._caches.popitem(last=False)
        return [Asked(prompt, caches[key]) for key, prompt in zip(keys, prompts, strict=True)]


_Prefix = tuple[str, tuple[int, ...]]


def _prefix(encoded: Encoded) -> _Prefix:
    """Prompts share their image's cache when its pixels and everything up to its end are the same."""
    return encoded.image_key, tuple(encoded.input_ids[0, : encoded.spans[-1].end].tolist())
