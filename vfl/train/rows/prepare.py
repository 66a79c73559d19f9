"""From data files to the training set: every row read, opened and encoded once before the first step.

What can't be used is known by then, with its row: nothing fails halfway through a run. The result is kept in the run's
folder, so that a resumed run and the other ranks don't do it again.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch.utils.data import DataLoader

from vfl.data import BadRow, Sample, read
from vfl.data.token_weights import TOKEN_WEIGHTS, TokenWeights
from vfl.errors import InputError
from vfl.io.atomic import replacing
from vfl.io.progress import progress_bar
from vfl.models.conversation import ConversationEncoder
from vfl.train.preflight.facts import DataFacts
from vfl.train.recipe import DataConfig
from vfl.train.rows.audited import audited
from vfl.train.rows.table import write_rows
from vfl.train.rows.weights import OtherTokensError

logger = logging.getLogger(__name__)

ROWS, CHECKED = "rows.arrow", "checked.json"
CHECKS = "audited and weighed"  # what is checked in rows; changed with it, so that earlier rows are checked again
SHOWN = 5  # bad rows in a message; all are in errors.jsonl


@dataclass(frozen=True)
class Prepared:
    """The training set.

    Attributes:
        rows: with the columns of `vfl.train.rows.table`, and `length` in tokens.
        text: tokens of each row that are not image tokens.
        image: image tokens of each row.
        facts: what was read, for preflight and card.
    """

    rows: Dataset
    text: list[int]
    image: list[int]
    facts: DataFacts


@dataclass(frozen=True)
class _Checked:
    """One row, encoded: tokens of text and of images, or why it can't be used."""

    text: int = 0
    image: int = 0
    reason: str | None = None
    other_tokens: bool = False


def check_paths(config: DataConfig) -> None:
    """Say what is not there before a large model is read.

    Raises:
        InputError: names the key and the path.
    """
    for path in config.train:
        if not path.exists():
            raise InputError(f"There is no data at {path} (data.train). Check the path; it is taken from {Path.cwd()}.")
    if config.token_weights is not None and not config.token_weights.is_file():
        raise InputError(
            f"There is no file {config.token_weights} (data.token_weights); `vfl select filter --token-weights` writes"
            f" {TOKEN_WEIGHTS} into the subset."
        )
    if config.images is not None and not config.images.is_dir():
        raise InputError(f"There is no folder {config.images} (data.images). Give the folder that the images lie in.")


def prepare(
    config: DataConfig, encoder: ConversationEncoder, folder: Path, *, method: str, workers: int, progress: bool = True
) -> Prepared:
    """Read, check and measure all rows; what is skipped goes to errors.jsonl beside `folder`.

    Args:
        config: the recipe's `data`.
        encoder: of the model; its tokens are the lengths.
        folder: for the rows on disk.
        method: "sft" or "dpo": rows of preference pairs are for the latter alone.
        workers: processes that decode and encode.
        progress: show a bar.

    Raises:
        InputError: for unusable rows unless the recipe skips them, and when none is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {str(path): _file_hash(path) for path in config.train}
    weighed = None if config.token_weights is None else _file_hash(config.token_weights)
    key = _key(config, files, encoder, method, weighed)
    prepared = _load(folder, key)
    if prepared is not None:
        return prepared
    (folder / CHECKED).unlink(missing_ok=True)  # it speaks of the rows that are about to be replaced
    try:
        content = _check(config, encoder, folder, files, method, workers, progress)
    except InputError:
        (folder / ROWS).unlink(missing_ok=True)
        raise
    with replacing(folder / CHECKED) as temporary:
        temporary.write_text(json.dumps({"key": key, **content}), encoding="utf-8")
    loaded = _load(folder, key)
    assert loaded is not None
    return loaded


def _check(
    config: DataConfig,
    encoder: ConversationEncoder,
    folder: Path,
    files: dict[str, str],
    method: str,
    workers: int,
    progress: bool,
) -> dict[str, Any]:
    """Write the rows to disk, encode each, and tell which are kept, with their lengths."""
    counts: Counter[str] = Counter()
    bad: list[BadRow] = []
    weights = None if config.token_weights is None else TokenWeights(config.token_weights)
    rows = write_rows(_usable(config, method, counts, bad, weights), folder / ROWS, weights)
    checked = list(_check_all(rows, encoder, method, workers, progress)) if len(rows) else []
    for row, result in enumerate(checked):
        if result.other_tokens:  # no row of this data would do
            raise InputError(f"{rows[row]['where']} ({rows[row]['uid']}): {result.reason}.")
        if result.reason:
            bad.append(BadRow(rows[row]["where"], rows[row]["uid"], result.reason))
    limit = config.max_length
    too_long = [
        BadRow(rows[n]["where"], rows[n]["uid"], f"{check.text + check.image} tokens, data.max_length is {limit}")
        for n, check in enumerate(checked)
        if limit is not None and check.reason is None and check.text + check.image > limit
    ]
    _record(folder.parent / "errors.jsonl", [*bad, *too_long])
    _refuse("can't be used", bad, counts["rows"], config.on_bad_row, "on_bad_row")
    _refuse("are too long", too_long, counts["rows"], config.on_long_row, "on_long_row")
    dropped = {row.uid for row in too_long}
    kept = [n for n, check in enumerate(checked) if check.reason is None and rows[n]["uid"] not in dropped]
    if not kept:
        raise InputError(f"No row of {', '.join(files)} can be trained on. The reasons are in errors.jsonl.")
    facts = DataFacts(
        rows=counts["rows"],
        used=len(kept),
        bad=len(bad),
        too_long=len(too_long),
        text_only=counts["text_only"],
        multi_turn=counts["multi_turn"],
        multi_image=counts["multi_image"],
        weighed=None if config.token_weights is None else _share(rows.select(kept)["weights"]),
        files=files,
    )
    return {
        "kept": kept,
        "text": [checked[n].text for n in kept],
        "image": [checked[n].image for n in kept],
        "facts": facts.model_dump(),
    }


def _share(weights: list[bytes]) -> float:
    """Of all tokens, those with weight 1."""
    return sum(map(sum, weights)) / sum(map(len, weights))


def _load(folder: Path, key: str) -> Prepared | None:
    """What an earlier call left, if it was about the same data and model."""
    try:
        content = json.loads((folder / CHECKED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if content["key"] != key:
        return None
    lengths = [a + b for a, b in zip(content["text"], content["image"], strict=True)]
    rows = Dataset.from_file(str(folder / ROWS)).select(content["kept"]).add_column("length", lengths)
    return Prepared(rows, content["text"], content["image"], DataFacts.model_validate(content["facts"]))


def _usable(
    config: DataConfig, method: str, counts: Counter[str], bad: list[BadRow], weights: TokenWeights | None
) -> Iterator[Sample]:
    """Samples of all sources; what they are is counted, the unusable are set aside."""
    source = read(
        list(config.train),
        images=config.images,
        format=config.format,
        allow_remote=config.allow_remote,
        image_column=config.image_column,
    )
    for sample in source:
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
        counts["text_only"] += not sample.images
        counts["multi_image"] += len(sample.images) > 1
        counts["multi_turn"] += sum(m["role"] == "assistant" for m in sample.messages[sample.prompt :]) > 1
        if weights is not None and sample not in weights:
            bad.append(BadRow(sample.where, sample.uid, f"{weights.path} has no token weights for it"))
            continue
        yield sample


def _check_all(
    rows: Dataset, encoder: ConversationEncoder, method: str, workers: int, progress: bool
) -> Iterator[_Checked]:
    """Every row encoded as it will be in training, by the data loader that training uses."""
    loader = DataLoader(
        rows, batch_size=16, num_workers=workers, collate_fn=partial(_check_rows, encoder=encoder, method=method)
    )
    with progress_bar(total=len(rows), desc="checking rows", unit="row", disable=not progress, leave=False) as bar:
        for batch in loader:
            yield from batch
            bar.update(len(batch))


def _check_rows(rows: Sequence[dict[str, Any]], encoder: ConversationEncoder, method: str) -> list[_Checked]:
    return [_check_row(row, encoder, method) for row in rows]


def _check_row(row: dict[str, Any], encoder: ConversationEncoder, method: str) -> _Checked:
    longest = _Checked()
    try:
        for rejected in (False, True) if method == "dpo" else (False,):
            longest = max(longest, _Checked(*audited(row, encoder, rejected=rejected)), key=lambda side: side.text)
    except InputError as error:
        return _Checked(reason=str(error), other_tokens=isinstance(error, OtherTokensError))
    # Processors reject what they can't handle (extreme shapes, a placeholder in the text) with errors of their own.
    except (ValueError, IndexError, KeyError, TypeError, RuntimeError) as error:
        return _Checked(reason=f"the processor refuses it: {' '.join(str(error).split())}")
    return longest


def _refuse(what: str, rows: list[BadRow], total: int, policy: str, key: str) -> None:
    if not rows:
        return
    some = "; ".join(f"{row.where} ({row.uid}): {row.reason}" for row in rows[:SHOWN])
    more = f"; and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    if policy == "error":
        raise InputError(
            f"{len(rows)} of {total} rows {what}: {some}{more}. All are in errors.jsonl. Mend them, or leave them out "
            f"with data.{key}=skip."
        )
    logger.warning("%d of %d rows %s and are left out: %s%s", len(rows), total, what, some, more)


def _record(path: Path, rows: Sequence[BadRow]) -> None:
    if not rows:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as temporary:
        facts = [{"where": row.where, "uid": row.uid, "reason": row.reason} for row in rows]
        lines = [json.dumps(bad, ensure_ascii=False) + "\n" for bad in facts]
        temporary.write_text("".join(lines), encoding="utf-8")


def _key(
    config: DataConfig, files: dict[str, str], encoder: ConversationEncoder, method: str, weighed: str | None
) -> str:
    """Hash of everything that the prepared rows depend on."""
    facts = [config.model_dump_json(), json.dumps(files), method, CHECKS, encoder.fingerprint(), str(weighed)]
    return sha256("\n".join(facts).encode()).hexdigest()


def _file_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and bytes of a folder's files."""
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
