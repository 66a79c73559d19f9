"""Rows of the training set as they lie on disk (Arrow, memory-mapped), and back to conversations with open images."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value
from datasets import List as ListOf
from datasets.arrow_writer import ArrowWriter

from vfl.data.cell import MOST_KEPT, Cell
from vfl.data.imageref import ImageRef, Span
from vfl.data.sample import Message, Sample
from vfl.data.token_weights import RowWeights, TokenWeights
from vfl.errors import InputError
from vfl.evaluate.right_answers import RowMatch, right_answer
from vfl.io.atomic import replacing
from vfl.io.hub import named

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
        # a file, bytes of one (from offset on, or in a cell of a parquet file), bytes that lie here, or an address
        "images": ListOf(
            {
                "name": Value("string"),
                "path": Value("string"),
                "offset": Value("int64"),
                "length": Value("int64"),
                "group": Value("int64"),
                "row": Value("int64"),
                "keys": Value("string"),
                "stamp": Value("string"),
                "size": Value("int64"),
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
    streaming: bool = False,
) -> Dataset:
    """Write samples and their tokens' weights to an Arrow file as they come, in constant memory, and open it.

    Args:
        match: where answers are sampled, how they are compared with a row's last one; all before it is then the prompt.
        labelled: whether rows say if their last answer is good; all before it is the prompt then, too.
        streaming: whether pictures stay where they lie.

    Raises:
        InputError: with `streaming`, for a picture that would have to be copied.
    """
    count = 0
    # Beside the old file, which another process may have mapped into its memory.
    with replacing(path) as temporary:
        writer = ArrowWriter(path=str(temporary), features=FEATURES, writer_batch_size=100)
        for sample in samples:
            writer.write(_row(sample, None if weights is None else weights.of(sample), match, labelled, streaming))
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


def _row(
    sample: Sample, weights: RowWeights | None, match: RowMatch | None, labelled: bool, streaming: bool
) -> dict[str, Any]:
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
        "images": [_in_place(image, sample) if streaming else _stored(image) for image in sample.images],
    }


def _stored(image: ImageRef) -> dict[str, Any]:
    """An image by its place where it has one outside of packed files, else its bytes."""
    span = image.span
    path = image.path if span is None else span.path
    return {
        **dict.fromkeys(("group", "row", "keys", "stamp", "size")),
        "name": image.name,
        "path": None if path is None else str(path),
        "offset": None if span is None else span.offset,
        "length": None if span is None else span.length,
        "data": image.data if span is None else None,
        "url": image.url,
    }


def _in_place(image: ImageRef, sample: Sample) -> dict[str, Any]:
    """An image by its place, in whatever file."""
    cell = image.cell
    if cell is None:
        stored = _stored(image)
        if stored["data"] is not None:
            raise InputError(
                f"data.streaming reads pictures where they lie, and {sample.where} ({sample.uid}) has one that is "
                "packed in another way than parquet's columns of bytes (base64, .tar.gz, a saved data set), so it "
                "would be copied. Write the rows as parquet (datasets.Dataset.to_parquet) or with picture files, or "
                "leave streaming out."
            )
        return stored
    columns = {other.cell.keys[0]: other.cell.size for other in sample.images if other.cell is not None}
    if (size := sum(columns.values())) > MOST_KEPT:  # of all columns: a row needs them at a time
        raise InputError(
            f"{named(cell.path)}: row group {cell.group + 1} has {size / 2**20:,.0f} MiB of pictures, and "
            f"data.streaming holds at most {MOST_KEPT / 2**20:,.0f} MiB in memory. Write the file with smaller row "
            "groups (pyarrow.parquet.write_table(..., row_group_size=100)), or leave streaming out."
        )
    return _stored(replace(image, data=None)) | {
        "path": str(cell.path),
        "group": cell.group,
        "row": cell.row,
        "keys": json.dumps(cell.keys),
        "stamp": cell.stamp,
        "size": cell.size,
    }


def _reference(stored: dict[str, Any]) -> ImageRef:
    path = None if stored["path"] is None else Path(stored["path"])
    if path is not None and stored["group"] is not None:
        keys = tuple(json.loads(stored["keys"]))
        cell = Cell(path, stored["stamp"], stored["group"], stored["row"], keys, stored["size"])
        return ImageRef(None, None, stored["name"], cell=cell)
    if path is not None and stored["offset"] is not None:
        return ImageRef(None, None, stored["name"], span=Span(path, stored["offset"], stored["length"]))
    return ImageRef(path, stored["data"], stored["name"], stored["url"])
