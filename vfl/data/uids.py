"""Names of rows that stay the same from run to run: the given id where no other row has it, else a hash of the content.

Ids repeat in known data sets (LLaVA's), and rows repeat as a whole; each row still gets a name of its own, since the
hash is followed by the number of its occurrence.
"""

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from vfl.data.imageref import ImageRef
from vfl.data.sample import Message


def repeated_ids(ids: Iterable[str | None]) -> "array[int]":
    """The digests of the ids that occur more than once, ascending: 8 bytes each, and 8 for every id while it counts."""
    return _repeated(array("Q", (_digest8(one) for one in ids if one is not None)))


def _repeated(digests: "array[int]") -> "array[int]":
    if not digests:
        return digests
    ordered = np.frombuffer(digests, dtype=np.uint64)
    ordered.sort()
    return array("Q", np.unique(ordered[1:][ordered[1:] == ordered[:-1]]).tobytes())


class Namer:
    """Gives each row its uid, in reading order."""

    ended = False

    def __init__(self, repeated: "array[int]") -> None:
        self.repeated = repeated
        self.seen = Occurrences()

    def name(self, own_id: str | None, content: bytes) -> str:
        """The uid of a row that came with the id `given` and whose content has the digest `content` (16 bytes)."""
        if own_id is not None and not self._repeats(_digest8(own_id)):
            return own_id
        return f"{content.hex()}#{self.seen.count(int.from_bytes(content[:8], 'little'))}"

    def _repeats(self, digest: int) -> bool:
        place = bisect_left(self.repeated, digest)
        return place < len(self.repeated) and self.repeated[place] == digest


class Named:
    """Gives the names that rows had when they were read before."""

    def __init__(self, uids: Iterator[str]) -> None:
        self.uids = uids
        self._next = next(uids, None)

    @property
    def ended(self) -> bool:
        """Whether no row is left."""
        return self._next is None

    def name(self, own_id: str | None, content: bytes) -> str:
        """The next name, whatever the row."""
        assert self._next is not None
        uid, self._next = self._next, next(self.uids, None)
        return uid


class Unnamed:
    """For a reading whose rows are named when it has ended: until then by what they came with."""

    ended = False

    def __init__(self) -> None:
        self.own_id: str | None = None
        self.content = b""
        self._digests = array("Q")

    def name(self, own_id: str | None, content: bytes) -> str:
        """The row's id, or its content's digest; both are this row's `own_id` and `content` until the next comes."""
        self.own_id, self.content = own_id, content
        if own_id is not None:
            self._digests.append(_digest8(own_id))
        return content.hex() if own_id is None else own_id

    def namer(self) -> Namer:
        """What names the rows, in the same order, now that all their ids are known."""
        return Namer(_repeated(self._digests))


class Occurrences:
    """Counts how often each 64-bit number has come. Open addressing in two arrays: 18 to 36 bytes a number.

    A Python set or dict needs about 100. Two rows of ten million share 64 bits with a probability of 3 in a million;
    the second is then numbered as if it were a repeat, and its name is still its own.
    """

    def __init__(self) -> None:
        self.used = 0
        self._allocate(2**10)

    def count(self, number: int) -> int:
        """How often this number came before, which is counted from now on."""
        if 3 * self.used >= 2 * len(self.keys):
            self._grow()
        slot = self._slot(number)
        before = self.counts[slot]
        if before == 0:
            self.keys[slot] = number
            self.used += 1
        self.counts[slot] = before + 1
        return before

    def _slot(self, number: int) -> int:
        mask = len(self.keys) - 1
        slot = number & mask
        while self.counts[slot] and self.keys[slot] != number:
            slot = (slot + 1) & mask
        return slot

    def _allocate(self, size: int) -> None:
        self.keys, self.counts = array("Q", bytes(8 * size)), array("I", bytes(4 * size))

    def _grow(self) -> None:
        old = zip(self.keys, self.counts, strict=True)
        self._allocate(2 * len(self.keys))
        for number, count in old:
            if count:
                slot = self._slot(number)
                self.keys[slot], self.counts[slot] = number, count


def content_digest(
    messages: Iterable[Message], rejected: Iterable[Message] | None, images: Iterable[ImageRef]
) -> bytes:
    """16 bytes that say what a row shows and says: the same for the same row in another format or container."""
    told = [_told(turn) for turn in messages]
    other = None if rejected is None else [_told(turn) for turn in rejected]
    return stored_digest([told, other, [image.name if image.data is None else image.data for image in images]])


def _told(turn: Message) -> list[Any]:
    return [turn["role"], *(part.get("text") for part in turn["content"])]


def stored_digest(value: Any) -> bytes:
    """16 bytes for any value of lists, dicts and scalars. Does not recurse: broken rows may be nested deeply."""
    # the length before each piece keeps ["ab", "c"] and ["a", "bc"] apart
    told = b"".join(part for piece in _pieces(value) for part in (b"%d:" % len(piece), piece))
    return hashlib.blake2b(told, digest_size=16).digest()


def _pieces(value: Any) -> Iterator[bytes]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield b"{%d" % len(one)
            waiting += [part for key in sorted(one, key=str) for part in (one[key], str(key))]
        elif isinstance(one, (list, tuple)):
            yield b"[%d" % len(one)
            waiting += reversed(one)
        elif isinstance(one, bytes):
            yield b"b" + one
        elif isinstance(one, str):
            yield b"s" + one.encode("utf-8", "surrogatepass")
        else:
            yield b"o" + repr(one).encode("utf-8", "surrogatepass")


def _digest8(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")
