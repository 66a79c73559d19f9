"""Rows of parts as batches for the model: of about equal lengths, decoded in parallel and encoded ahead of the model.

Memory holds the rows of two parts and the open images of a few batches, however large the data is.
"""

import io
import statistics
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from PIL import Image

from vfl.data import ImageRef, Sample
from vfl.data.imageref import FORMATS
from vfl.errors import InputError
from vfl.models.conversation import ConversationBatch, ConversationEncoder
from vfl.models.vlm import VLM
from vfl.select.hashes import image_hash, text_hash

Bomb = Image.DecompressionBombError
AHEAD = 1
"""Batches that wait encoded while the model works, besides those that are being encoded."""
_SIDES = (56, 112, 224, 448, 896, 1344)
_MORE = 4
"""Times the rows of a batch of middle length that one of short rows may have."""


@dataclass(frozen=True)
class Entry:
    """A row of the data and its number in it."""

    position: int
    sample: Sample


K = int
Part = tuple[K, Sequence[Entry]]
"""A part's number and its rows."""


@dataclass(frozen=True)
class Failure:
    """A row that can't be scored, and why."""

    uid: str
    position: int
    where: str
    reason: str


@dataclass(frozen=True)
class Row:
    """A row with its images in place."""

    entry: Entry
    messages: list[dict[str, Any]]
    text_hash: str
    image_hash: str

    def failed(self, reason: str) -> Failure:
        return Failure(self.entry.sample.uid, self.entry.position, self.entry.sample.where, reason)


@dataclass(frozen=True)
class Ready:
    """A batch (None where no row of it is left) with its rows, and the rows that could not be encoded."""

    batch: ConversationBatch | None
    rows: list[Row]
    failures: list[Failure] = field(default_factory=list)


class Feeder:
    """Opens and encodes rows; a context manager, since it holds threads.

    Args:
        vlm: the model.
        limit: most tokens a row.
        workers: threads that decode images.
        encoders: threads that encode batches, each with a processor of its own.
    """

    def __init__(self, vlm: VLM, limit: int, workers: int, encoders: int = 2) -> None:
        # Of their own: tokenizers are not to be used by two threads at once.
        self.tokenizer = deepcopy(vlm.tokenizer)
        self.tokenizer.model_max_length = 2**62  # or it warns of rows that are found too long further on
        self.idle: SimpleQueue[ConversationEncoder] = SimpleQueue()
        for _ in range(encoders):
            self.idle.put(_encoder_of(vlm))
        self.limit = limit
        # Copied from pinned memory, a batch moves to the GPU while the one before it is worked on.
        self.pinned = vlm.device.type == "cuda"
        placeholder: str = vlm.tokenizer.convert_ids_to_tokens(vlm.parts.image_token_id)
        # Written in a text, they would be encoded as the signs of turns, ends and images that they are.
        special = [token.content for token in vlm.tokenizer.added_tokens_decoder.values() if token.special]
        self.control = sorted({placeholder, *special} - {""})
        self.tokens_a_row: float | None = None  # of the first part
        encoder = _encoder_of(vlm)
        self.tokens_of_sides = [_image_tokens(encoder, side) for side in _SIDES]
        self.decoding = ThreadPoolExecutor(workers, "decode")
        self.encoding = ThreadPoolExecutor(encoders, "encode")
        self.ahead = encoders + AHEAD
        self.reading = ThreadPoolExecutor(1, "read")

    def __enter__(self) -> "Feeder":
        return self

    def __exit__(self, *_: object) -> None:
        self.reading.shutdown(cancel_futures=True)
        self.encoding.shutdown(cancel_futures=True)
        self.decoding.shutdown(cancel_futures=True)

    def batches(self, parts: Iterator[Part], size: int, most_tokens: list[float]) -> Iterator[tuple[K, Ready | None]]:
        """The entries of parts in batches, each with its part's key, and None at the end of each part.

        The longest rows come first, text-only rows by themselves, each batch of about as many tokens, padding included,
        as `size` rows of the part's middle length have: `size` rows of the middle length, fewer of longer ones, more of
        shorter ones. A part is read and its first batches are encoded while the model works on the last ones of the
        part before it.

        Args:
            parts: is read in a thread of its own.
            most_tokens: one number, read anew for each batch: about how many tokens, padding included, it may hold.
        """
        waiting: deque[tuple[K, Future[Ready] | None]] = deque()
        upcoming = self.reading.submit(self._next, parts)
        try:
            while True:
                while waiting and not upcoming.done():
                    yield _taken(waiting)
                while waiting and upcoming.exception() is not None:  # what is read is scored before it is raised
                    yield _taken(waiting)
                part = upcoming.result()
                if part is None:
                    break
                key, left = part
                middle = statistics.median(length for length, _ in left) if left else 0.0
                while left:
                    count = _fitting(left, size, min(size * middle, most_tokens[0]))
                    opened = [self.decoding.submit(self._open, entry) for _, entry in left[:count]]
                    waiting.append((key, self.encoding.submit(self._ready, opened)))
                    del left[:count]
                    while len(waiting) > self.ahead:
                        yield _taken(waiting)
                upcoming = self.reading.submit(self._next, parts)
                waiting.append((key, None))
            while waiting:
                yield _taken(waiting)
        finally:
            upcoming.cancel()
            for _, future in waiting:
                if future is not None:
                    future.cancel()

    def _next(self, parts: Iterator[Part]) -> tuple[K, list[tuple[float, Entry]]] | None:
        """The next part's key, and its entries with their lengths in the order in which they are to come."""
        part = next(parts, None)
        if part is None:
            return None
        key, entries = part
        lengths = self._lengths(entries)
        if self.tokens_a_row is None and lengths:
            self.tokens_a_row = statistics.fmean(lengths)
        return key, sorted(
            zip(lengths, entries, strict=True),
            key=lambda entry: (not entry[1].sample.images, -entry[0], entry[1].position),
        )

    def _open(self, entry: Entry) -> Row | Failure:
        sample = entry.sample
        try:
            for message in sample.messages:
                for part in message["content"]:
                    token = next((token for token in self.control if token in part.get("text", "")), None)
                    if token is not None:
                        raise InputError(
                            f"the text holds {token}, which is a control token of this model; take it out or write it"
                            " in another way"
                        )
            images = [image.open() for image in sample.images]
        except InputError as error:
            return Failure(sample.uid, entry.position, sample.where, str(error))
        places = iter(images)
        messages = [
            message
            | {"content": [{**p, "image": next(places)} if p["type"] == "image" else p for p in message["content"]]}
            for message in sample.messages
        ]
        return Row(entry, messages, text_hash(sample.messages), image_hash(images))

    def _ready(self, opened: Sequence[Future[Row | Failure]]) -> Ready:
        results = [future.result() for future in opened]
        failures = [one for one in results if isinstance(one, Failure)]
        encoder = self.idle.get()  # as many as there are threads
        try:
            encoded = self._encode([one for one in results if isinstance(one, Row)], encoder)
        finally:
            self.idle.put(encoder)
        batch = encoded.batch and replace(encoded.batch, inputs=self._placed(encoded.batch.inputs))
        return Ready(batch, encoded.rows, failures + encoded.failures)

    def _placed(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: value.pin_memory() for name, value in inputs.items()} if self.pinned else inputs

    def _encode(self, rows: list[Row], encoder: ConversationEncoder) -> Ready:
        """The batch of those rows that can be encoded and are no longer than the limit."""
        if not rows:
            return Ready(None, [])
        try:
            batch = encoder.encode([row.messages for row in rows], [row.entry.sample.prompt for row in rows])
        # Processors reject what they can't handle (extreme shapes) with errors of their own.
        except (ValueError, IndexError, KeyError, TypeError, RuntimeError) as error:
            if len(rows) == 1:
                told = " ".join(str(error).split())
                told = told if isinstance(error, InputError) else f"the processor refuses it: {told}"
                return Ready(None, [], [rows[0].failed(told)])
            alone = [self._encode([row], encoder) for row in rows]
            failures = [failure for one in alone for failure in one.failures]
            if not failures:
                raise
            rest = self._encode([row for one in alone for row in one.rows], encoder)
            return Ready(rest.batch, rest.rows, failures + rest.failures)
        lengths = batch.lengths.tolist()
        failures = [
            row.failed(f"{length} tokens, the limit is {self.limit}")
            for row, length in zip(rows, lengths, strict=True)
            if length > self.limit
        ]
        if failures:
            fitting = [row for row, length in zip(rows, lengths, strict=True) if length <= self.limit]
            rest = self._encode(fitting, encoder)
            return Ready(rest.batch, rest.rows, failures + rest.failures)
        return Ready(batch, rows)

    def _lengths(self, entries: Sequence[Entry]) -> list[float]:
        """About how many tokens each row has: those of its text, and by the headers of its images."""
        if not entries:
            return []
        areas = self.decoding.map(lambda entry: [_area(image) for image in entry.sample.images], entries)
        texts = ["\n".join(_texts(entry.sample)) for entry in entries]
        tokens = self.tokenizer(texts, add_special_tokens=False, return_length=True, verbose=False)
        sides = [side * side for side in _SIDES]
        return [
            len(ids) + float(np.sum(np.interp(of_row, sides, self.tokens_of_sides)))
            for ids, of_row in zip(tokens["input_ids"], areas, strict=True)
        ]


def _encoder_of(vlm: VLM) -> ConversationEncoder:
    return ConversationEncoder(
        deepcopy(vlm.processor), vlm.family, vlm.parts.image_token_id, vlm.end_ids(), vlm.chat_template, vlm.dtype
    )


def _image_tokens(encoder: ConversationEncoder, side: int) -> int:
    """Vision tokens of a square image: the same for all sizes with some models, as many as pixels with others."""
    image = {"type": "image", "image": Image.new("RGB", (side, side))}
    turns = [("user", [image, {"type": "text", "text": "?"}]), ("assistant", [{"type": "text", "text": "!"}])]
    batch = encoder.encode([[{"role": role, "content": content} for role, content in turns]])
    return int((batch.inputs["input_ids"] == encoder.image_token_id).sum())


def _fitting(left: Sequence[tuple[float, Entry]], size: int, tokens: float) -> int:
    """How many of the first rows make a batch: as many as `tokens` hold, all with images or all without."""
    longest, first = left[0]
    count = int(max(1, min(_MORE * size, tokens / max(longest, 1))))
    return sum(bool(entry.sample.images) == bool(first.sample.images) for _, entry in left[:count])


def _taken(waiting: deque[tuple[K, Future[Ready] | None]]) -> tuple[K, Ready | None]:
    key, future = waiting.popleft()
    return key, None if future is None else future.result()


def _texts(sample: Sample) -> Iterator[str]:
    return (part["text"] for turn in sample.messages for part in turn["content"] if part["type"] == "text")


def _area(image: ImageRef) -> int:
    """Pixels of an image by its header; of one that isn't here, or whose header is broken, those of a common one."""
    if image.path is None and image.data is None:
        return 448 * 448
    try:
        with Image.open(image.path or io.BytesIO(image.data or b""), formats=FORMATS) as opened:
            width, height = opened.size
    # Decoding will say what is wrong. These are what Pillow's parsers of headers stumble over.
    except (OSError, ValueError, SyntaxError, LookupError, TypeError, OverflowError, struct.error, Bomb):
        return 448 * 448
    return int(width * height)
