"""The rows of a run a part at a time, each saved when it is done: an interrupted run goes on after the last one.

OUT/parts/00000.json    what became of the first rows, with a hash of all that this depends on
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from hashlib import sha256
from itertools import islice
from pathlib import Path

from vfl.data import BadRow, Sample
from vfl.data.uids import content_digest
from vfl.errors import InputError
from vfl.io.json_files import write_json
from vfl.negatives.asking import Asked

logger = logging.getLogger(__name__)

PARTS = "parts"
PART_ROWS = 512
Rows = Iterator[Sample | BadRow]


def asked_in_parts(
    rows: Rows, folder: Path, facts: Sequence[str], ask: Callable[[Sequence[Sample | BadRow]], list[Asked]]
) -> Iterator[list[Asked]]:
    """What becomes of the rows, part by part: from the file where there is one, else asked and saved.

    Args:
        rows: of the data.
        folder: of the parts.
        facts: what the answers depend on besides the rows: model, layers, settings.
        ask: gives what becomes of some rows.

    Raises:
        InputError: for a part that was made of other rows, by another model or at other layers.
    """
    number = 0
    while part := list(islice(rows, PART_ROWS)):
        path, key = _file(folder, number), digest(part, facts)
        done = _read(path, key)
        if done is None:
            done = ask(part)
            write_json(path, {"key": key, "rows": [asdict(asked) for asked in done]}, indent=None)
        yield done
        number += 1


def saved(folder: Path, parts: int) -> Iterator[Asked]:
    """What became of all rows of the first so many parts, in order."""
    for number in range(parts):
        content = json.loads(_file(folder, number).read_text(encoding="utf-8"))
        yield from (Asked(**row) for row in content["rows"])


def digest(rows: Sequence[Sample | BadRow], facts: Sequence[str]) -> str:
    """SHA-256 of rows, by their names, texts and images' names or bytes, and of what else matters."""
    hashed = sha256("\n".join(facts).encode())
    for row in rows:
        hashed.update(f"\n{row.uid}\n".encode())
        if isinstance(row, Sample):
            hashed.update(content_digest(list(row.messages), None, row.images))
    return hashed.hexdigest()


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:05}.json"


def _read(path: Path, key: str) -> list[Asked] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        before, done = content["key"], [Asked(**row) for row in content["rows"]]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        logger.warning("%s can't be read (%s): its rows are asked anew", path, error)
        return None
    if before != key:
        raise InputError(
            f"{path} holds answers to other rows, or of another model or map, than those at hand. Use --overwrite to "
            "begin again."
        )
    return done
