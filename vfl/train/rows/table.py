"""Rows of the training set as they lie on disk (Arrow, memory-mapped), and back to conversations with open images."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value
from datasets import List as ListOf
from datasets.arrow_writer import ArrowWriter

from vfl.data.imageref import ImageRef, Span
from vfl.data.sample import Message, Sample
from vfl.data.token_weights import RowWeights, TokenWeights
from vfl.errors import InputError
from vfl.evaluate.right_answers import RowMatch, right_answer
from vfl.io.atomic import replacing

LABELS = ("label", "kto_tag")
_TRUE, _FALSE = {"true", "1", "1.0"}, {"false", "0", "0.0"}
ANCHOR = "anchor"
"""Column of a training set with anchors, whose features stand below without it: a row's number, -1 for no anchor."""

# TRL takes a data set for one with images by the column's name.
FEATURES = Features(
    {
        "uid": Value("string"),
        "where": Value("string"),
        "messages": Value("large_string"),
        "rejected": Value("large_string"),
        "prompt": Value("int32"),
        # whether the answer is good; null where rows have no labels
        "label": Value("bool"),
        # how sampled answers are compared with the row's own; null where none are sampled
        "match": Value("string"),
        # of the answers' tokens: a byte each, and the hash of those that they belong to; null where all count
        "weights": Value("binary"),
        "weighed": Value("string"),
        # a file, bytes of one (from offset on), bytes that lie here, or an address
        "images": ListOf(
            {
                "name": Value("string"),
                "path": Value("string"),
                "offset": Value("int64"),
                "length": Value("int64"),
                "data": Value("large_binary"),
                "url": Value("string"),
            }
        ),
    }
)


def write_rows(
    samples: Iterable[Sample],
    path: Path,
    weights: TokenWeights | None = None,
    match: RowMatch | None = None,
    *,
    labelled: bool = False,
) -> Dataset:
    """Write samples and their tokens' weights to an Arrow file as they come, in constant memory, and open it.

    Args:
        match: where answers are sampled, how they are compared with a row's last one; all before it is then the prompt.
        labelled: whether rows say if their last answer is good; all before it is the prompt then, too.
    """
    count = 0
    # Beside the old file, which another process may have mapped into its memory.
    with replacing(path) as temporary:
        writer = ArrowWriter(path=str(temporary), features=FEATURES, writer_batch_size=100)
        for sample in samples:
            writer.write(_row(sample, None if weights is None else weights.of(sample), match, labelled))
            count += 1
        if count:
            writer.finalize()
        writer.close()
    return Dataset.from_file(str(path)) if count else Dataset.from_dict({name: [] for name in FEATURES}, FEATURES)


def conversation(row: dict[str, Any], *, rejected: bool = False) -> list[Message]:
    """A row's turns with its images open and in place.

    Raises:
        InputError: names the image that can't be read.
    """
    messages = json.loads(row["rejected" if rejected else "messages"])
    opened = iter([_reference(image).open() for image in row["images"]])
    for message in messages:
        for entry in message["content"]:
            if entry["type"] == "image":
                entry["image"] = next(opened)
    return messages


def answers_of(row: dict[str, Any], *, rejected: bool = False) -> list[str]:
    """The texts that a row is trained on."""
    messages = json.loads(row["rejected" if rejected else "messages"])
    return [
        " ".join(entry["text"] for entry in message["content"])
        for message in messages[row["prompt"] :]
        if message["role"] == "assistant"
    ]


def label_of(sample: Sample) -> bool:
    """Whether a row's answer is good, by its column `label` (TRL, ms-swift) or `kto_tag` (LLaMA-Factory).

    Raises:
        InputError: it has neither, or another value.
    """
    name = next((name for name in LABELS if sample.columns.get(name) is not None), None)
    if name is None:
        raise InputError("it does not say whether its answer is good: give a column label with true or false")
    value = str(sample.columns[name]).strip().casefold()
    if value not in _TRUE | _FALSE:
        raise InputError(f"its {name} is {sample.columns[name]!r}; expected true or false")
    return value in _TRUE


def _row(sample: Sample, weights: RowWeights | None, match: RowMatch | None, labelled: bool) -> dict[str, Any]:
    def text(messages: Sequence[Message] | None) -> str | None:
        return None if messages is None else json.dumps(list(messages), ensure_ascii=False)

    return {
        "uid": sample.uid,
        "where": sample.where,
        "messages": text(sample.messages),
        "rejected": text(sample.rejected),
        "prompt": len(sample.messages) - 1 if match is not None or labelled else sample.prompt,
        "label": label_of(sample) if labelled else None,
        "match": None if match is None else right_answer(sample.messages, match, len(sample.images)).match,
        "weights": None if weights is None else weights.weights,
        "weighed": None if weights is None else weights.tokens,
        "images": [_stored(image) for image in sample.images],
    }


def _stored(image: ImageRef) -> dict[str, Any]:
    """An image by its place where it has one, else its bytes."""
    span = image.span
    path = image.path if span is None else span.path
    return {
        "name": image.name,
        "path": None if path is None else str(path),
        "offset": None if span is None else span.offset,
        "length": None if span is None else span.length,
        "data": image.data if span is None else None,
        "url": image.url,
    }


def _reference(stored: dict[str, Any]) -> ImageRef:
    path = None if stored["path"] is None else Path(stored["path"])
    if path is not None and stored["offset"] is not None:
        return ImageRef(None, None, stored["name"], span=Span(path, stored["offset"], stored["length"]))
    return ImageRef(path, stored["data"], stored["name"], stored["url"])
