"""One data set as rows on disk, each read, encoded as in training and audited once.

    CACHE/rows/KEY/rows.arrow     the rows that could be read
    CACHE/rows/KEY/checked.json   what was found in each: its tokens, or why it can't be trained on

The key is a hash of all that this depends on, so that runs, arms and ranks share it, and what is decided by a run alone
(which rows are too long, what becomes of bad ones) is decided later. Images that rows name are no part of the key:
their sizes and times are looked at whenever the rows are opened.
"""

import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from datasets import Dataset
from pydantic import BaseModel, ConfigDict
from torch.utils.data import DataLoader

from vfl.data import BadRow, Sample, read
from vfl.data.cell import ContainerError
from vfl.data.token_weights import TokenWeights
from vfl.errors import InputError
from vfl.evaluate.right_answers import right_answer
from vfl.io.cache import cached_folder
from vfl.io.hub import is_address, named
from vfl.io.hub_in_place import pinned
from vfl.io.progress import progress_bar
from vfl.io.versions import versions
from vfl.models.conversation import ConversationEncoder
from vfl.models.system_turn import has_system, with_system
from vfl.train.data_config import DataConfig, TrainingSet
from vfl.train.rows.audited import audited
from vfl.train.rows.questions import measured
from vfl.train.rows.row_groups import in_turn_of_groups, row_groups
from vfl.train.rows.table import label_of, write_rows
from vfl.train.rows.weights import OtherTokensError

KIND, ROWS, CHECKED = "rows", "rows.arrow", "checked.json"
CHECKS = "audited, weighed, matched, labelled, images by place, cells"  # changed with it, so that rows are made again
BATCH = 16  # rows that a worker encodes at a time
FEW = 8  # batches that are no work for one more process
LOOKING = 16  # threads that look at files: a shared disk takes its time


class Checked(BaseModel):
    """What was found in the rows of a set.

    Attributes:
        read: rows that there are.
        unread: where, uid and reason of each that holds no conversation.
        text: tokens of each row on disk that are not image tokens; 0 for those that are refused.
        image: its image tokens.
        refused: why a row on disk, by its number, can't be trained on.
        other_tokens: the row whose token weights belong to another tokenizer, where there is one.
        passing: some images could not be fetched, which may be otherwise the next time.
        images: hash of the names, sizes and times of the image files.
        absent: image files that rows name and that were not there, as JSON texts: names may hold anything.
    """

    model_config = ConfigDict(extra="forbid")

    read: int
    unread: list[tuple[str, str, str]]
    text: list[int]
    image: list[int]
    refused: dict[int, str]
    other_tokens: int | None
    passing: bool
    images: str
    absent: list[str]
    text_only: int
    multi_turn: int
    multi_image: int
    system_added: int = 0
    system_replaced: int = 0


@dataclass(frozen=True)
class SetOnDisk:
    """The rows that could be read, memory-mapped, what was found in them, and the hash of each data file's bytes."""

    rows: Dataset
    checked: Checked
    files: dict[str, str]


@dataclass
class _Reading:
    """What is noted while rows are read."""

    counts: Counter[str] = field(default_factory=Counter)
    bad: list[BadRow] = field(default_factory=list)


@dataclass(frozen=True)
class _Row:
    """One row, encoded: tokens of text and of images, or why it can't be used."""

    text: int = 0
    image: int = 0
    reason: str | None = None
    other_tokens: bool = False


def set_on_disk(
    source: TrainingSet,
    config: DataConfig,
    encoder: ConversationEncoder,
    *,
    method: str,
    progress: bool = True,
    verify: bool = True,
) -> SetOnDisk:
    """A set's rows, from the cache where they are in it already; else they are read, encoded and put there.

    Args:
        source: one of `config.sets`.
        config: the recipe's `data`.
        encoder: of the model; its tokens are counted.
        method: of training; rows of preference pairs are for "dpo" alone.
        progress: show bars.
        verify: look whether image files have changed; not needed where another process has just done so.

    Raises:
        InputError: for data that can't be read at all.
        ContainerError: for a file that could not be read while its rows were checked; nothing is cached then.
    """
    files = {named(path): file_hash(path) for path in source.path}

    def known(folder: Path) -> SetOnDisk | None:
        try:
            checked = Checked.model_validate_json((folder / CHECKED).read_bytes())
            rows = Dataset.from_file(str(folder / ROWS)) if checked.text else Dataset.from_dict({})
        except (FileNotFoundError, ValueError):  # Arrow's errors are ValueErrors
            return None
        if verify and (checked.passing or not _as_it_was(checked, rows)):
            return None
        return SetOnDisk(rows, checked, files)

    def make(folder: Path) -> None:
        checked = _check(source, config, encoder, folder, method, progress)
        (folder / CHECKED).write_text(checked.model_dump_json(), encoding="utf-8")

    key = _key(source, config, files, encoder, method)
    return cached_folder(KIND, key, known, make, doing=f"prepares {', '.join(files)}")


def code() -> dict[str, str]:
    """What reads, draws and encodes, by version."""
    return {"checks": CHECKS, **versions("tokenizers", "torchvision")}


def file_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and bytes of a folder's files; of an address on the hub, of its commit.

    Raises:
        InputError: it can't be read.
    """
    if is_address(path):
        return sha256(pinned(path).encode()).hexdigest()
    digest = sha256()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode())
        try:
            with file.open("rb") as handle:
                while chunk := handle.read(1 << 22):
                    digest.update(chunk)
        except OSError as error:
            raise InputError(f"The data {file} can't be read: {error.strerror}. Check data.train.") from error
    return digest.hexdigest()


def _key(
    source: TrainingSet, config: DataConfig, files: dict[str, str], encoder: ConversationEncoder, method: str
) -> str:
    """Hash of everything that the rows on disk depend on, but for the images that they name."""
    facts = {
        "files": [[name if is_address(name) else os.path.abspath(name), digest] for name, digest in files.items()],
        "images": None if source.images is None else os.path.abspath(source.images),
        "format": source.format,
        "image_column": source.image_column,
        "allow_remote": config.allow_remote,
        "streaming": config.streaming,
        "token_weights": None if config.token_weights is None else file_hash(config.token_weights),
        "method": method,
        "system_prompt": config.system_prompt,
        "match": source.match if method == "grpo" else None,
        "encoder": encoder.fingerprint(),
        "code": code(),
    }
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _check(
    source: TrainingSet,
    config: DataConfig,
    encoder: ConversationEncoder,
    folder: Path,
    method: str,
    progress: bool,
) -> Checked:
    """Write the rows to disk and encode each."""
    reading = _Reading()
    weights = None if config.token_weights is None else TokenWeights(config.token_weights)
    samples = progress_bar(
        _usable(source, config, method, reading, weights), "reading rows", unit="row", disable=not progress, leave=False
    )
    match = source.match if method == "grpo" else None
    labelled = method == "kto"
    rows = write_rows(samples, folder / ROWS, weights, match, labelled=labelled, streaming=config.streaming)
    checked = _check_all(rows, encoder, method, config, progress) if len(rows) else []
    refused = {number: row.reason for number, row in enumerate(checked) if row.reason}
    absent = [json.dumps(str(row.missing)) for row in reading.bad if row.missing is not None]
    return Checked(
        read=reading.counts["rows"],
        unread=[(row.where, row.uid, row.reason) for row in reading.bad],
        text=[row.text for row in checked],
        image=[row.image for row in checked],
        refused=refused,
        other_tokens=next((number for number, row in enumerate(checked) if row.other_tokens), None),
        passing=any(image["url"] is not None for number in refused for image in rows[number]["images"]),
        images=_look(_image_files(rows)),
        absent=absent,
        text_only=reading.counts["text_only"],
        multi_turn=reading.counts["multi_turn"],
        multi_image=reading.counts["multi_image"],
        system_added=reading.counts["system_added"],
        system_replaced=reading.counts["system_replaced"],
    )


def _usable(
    source: TrainingSet, config: DataConfig, method: str, reading: _Reading, weights: TokenWeights | None
) -> Iterator[Sample]:
    """Samples of a set; what they are is counted, the unusable are set aside."""
    counts, bad = reading.counts, reading.bad
    samples = read(
        list(source.path),
        images=source.images,
        format=source.format or "auto",
        allow_remote=config.allow_remote,
        image_column=source.image_column,
        streaming=config.streaming,
    )
    for sample in samples:
        counts["rows"] += 1
        if isinstance(sample, BadRow):
            bad.append(sample)
            continue
        if (sample.rejected is not None) != (method == "dpo"):
            kind, wanted = ("a preference pair", "dpo") if sample.rejected else ("no preference pair", "sft")
            bad.append(
                BadRow(sample.where, sample.uid, f"{kind}, and the method is {method}; it fits method: {wanted}")
            )
            continue
        if config.system_prompt is not None:
            counts["system_replaced" if has_system(sample.messages) else "system_added"] += 1
            sample = _under_system(sample, config.system_prompt)
        counts["text_only"] += not sample.images
        counts["multi_image"] += len(sample.images) > 1
        counts["multi_turn"] += sum(m["role"] == "assistant" for m in sample.messages[sample.prompt :]) > 1
        if reason := _no_signal(sample, source, method):
            bad.append(BadRow(sample.where, sample.uid, reason))
            continue
        if weights is not None and sample not in weights:
            bad.append(BadRow(sample.where, sample.uid, f"{weights.path} has no token weights for it"))
            continue
        yield sample


def _under_system(sample: Sample, prompt: str) -> Sample:
    """The row under another system prompt than its own."""
    added = bool(sample.prompt) and not has_system(sample.messages)
    return replace(
        sample,
        messages=with_system(sample.messages, prompt),
        rejected=None if sample.rejected is None else with_system(sample.rejected, prompt),
        prompt=sample.prompt + added,
    )


def _no_signal(sample: Sample, source: TrainingSet, method: str) -> str | None:
    """Why a row can't be learned from by its method: answers that can't be judged, or a label that is not there."""
    try:
        if method == "grpo":
            right_answer(sample.messages, source.match or "auto", len(sample.images))
        if method == "kto":
            label_of(sample)
    except InputError as error:
        return str(error)
    return None


def _check_all(
    rows: Dataset, encoder: ConversationEncoder, method: str, config: DataConfig, progress: bool
) -> list[_Row]:
    """Every row encoded as it will be in training, by processes that each take a batch at a time."""
    workers = _sensible(len(rows)) if config.workers is None else config.workers
    # Each process has row groups of its own: it would read all of them otherwise.
    order = in_turn_of_groups(row_groups(rows), BATCH, max(workers, 1)) if config.streaming else range(len(rows))
    loader = DataLoader(
        rows,
        sampler=order,
        batch_size=BATCH,
        num_workers=workers,
        collate_fn=partial(_check_rows, encoder=encoder, method=method),
    )
    checked = [_Row()] * len(rows)
    numbers = iter(order)
    with progress_bar(total=len(rows), desc="checking rows", unit="row", disable=not progress, leave=False) as bar:
        for batch in loader:
            for row in batch:
                checked[next(numbers)] = row
            bar.update(len(batch))
    return checked


def _sensible(rows: int) -> int:
    """Processes for so many rows: one a core, none where a few batches are all there is."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, rows // (BATCH * FEW))
    return workers if workers > 1 else 0


def _check_rows(rows: Sequence[dict[str, Any]], encoder: ConversationEncoder, method: str) -> list[_Row]:
    return [_check_row(row, encoder, method) for row in rows]


def _check_row(row: dict[str, Any], encoder: ConversationEncoder, method: str) -> _Row:
    longest = _Row()
    try:
        if method == "grpo":
            return _Row(*measured(row, encoder))
        for rejected in (False, True) if method == "dpo" else (False,):
            longest = max(longest, _Row(*audited(row, encoder, rejected=rejected)), key=lambda side: side.text)
    except ContainerError:  # no fault of the row: nothing is to be noted, and cached
        raise
    except InputError as error:
        return _Row(reason=str(error), other_tokens=isinstance(error, OtherTokensError))
    # Processors reject what they can't handle (extreme shapes, a placeholder in the text) with errors of their own.
    except (ValueError, IndexError, KeyError, TypeError, RuntimeError) as error:
        return _Row(reason=f"the processor refuses it: {' '.join(str(error).split())}")
    return longest


def _as_it_was(checked: Checked, rows: Dataset) -> bool:
    """Whether the images that rows name are those that were looked at."""
    if any(os.path.isfile(json.loads(path)) for path in checked.absent):
        return False
    return _look(_image_files(rows)) == checked.images


def _image_files(rows: Dataset) -> list[str]:
    """The image files of all rows, each once."""
    if not len(rows):
        return []
    seen: dict[str, None] = {}
    for images in rows.data.table.column("images").chunks:  # not as one: they may hold bytes too
        seen.update(dict.fromkeys(pc.drop_null(pc.struct_field(pc.list_flatten(images), "path")).to_pylist()))
    return list(seen)


def _look(paths: Iterable[str]) -> str:
    """Hash of files' names, sizes and times."""
    digest = sha256()
    with ThreadPoolExecutor(LOOKING) as pool:
        for path, seen in zip(paths, pool.map(_size_and_time, paths), strict=True):
            digest.update(f"{path}\0{seen}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _size_and_time(path: str) -> str:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return "absent"
    return f"{status.st_size} {status.st_mtime_ns}" if stat.S_ISREG(status.st_mode) else "no file"
