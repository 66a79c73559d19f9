"""Weights of answer tokens beside data: which of them training learns from.

A Parquet file with a row for each row of the data:

| column | what |
|---|---|
| `row` | 32 hex digits of what the row says and shows (`vfl.data.uids.content_digest`), whatever file it stands in |
| `tokens` | 16 hex digits of the answers' token ids (`answer_hash`), all turns in order |
| `weights` | 0 or 1 for each of these tokens |

Other trainers read the data and leave this file alone.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vfl.data.sample import Sample
from vfl.data.uids import content_digest
from vfl.errors import InputError

TOKEN_WEIGHTS = "token-weights.parquet"
SCHEMA = pa.schema([("row", pa.string()), ("tokens", pa.string()), ("weights", pa.list_(pa.uint8()))])


@dataclass(frozen=True)
class RowWeights:
    """Of one row: the hash of its answers' tokens, and a byte, 0 or 1, for each of them."""

    tokens: str
    weights: bytes


class TokenWeights:
    """The weights in a file, by row.

    Raises:
        InputError: the file can't be read, or holds other columns or other weights than 0 and 1.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            table = pq.read_table(path)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise InputError(f"The token weights {path} can't be read: {' '.join(str(error).split())[:200]}") from None
        if not table.schema.equals(SCHEMA):
            raise InputError(
                f"{path} has the columns {', '.join(table.schema.names)}; expected the file {TOKEN_WEIGHTS} that"
                " `vfl select filter --token-weights` writes, with row, tokens and weights."
            )
        self.table = table.combine_chunks()
        weights = self.table["weights"]
        single = pc.list_flatten(weights)
        if weights.null_count or single.null_count or not pc.all(pc.less_equal(single, 1), min_count=0).as_py():
            raise InputError(f"{path} holds weights other than 0 and 1; write it again with `vfl select filter`.")
        self.place = {row: number for number, row in enumerate(self.table["row"].to_pylist())}

    def __contains__(self, sample: Sample) -> bool:
        return row_digest(sample) in self.place

    def of(self, sample: Sample) -> RowWeights | None:
        """A row's weights, or None where the file has none for it."""
        number = self.place.get(row_digest(sample))
        if number is None:
            return None
        weights = np.array(self.table["weights"][number].as_py(), np.uint8)
        return RowWeights(self.table["tokens"][number].as_py(), weights.tobytes())


def row_digest(sample: Sample) -> str:
    """32 hex digits of what a row says and shows."""
    return content_digest(sample.messages, sample.rejected, sample.images).hex()


def answer_hash(ids: Sequence[int] | np.ndarray) -> str:
    """16 hex digits of token ids in order."""
    return hashlib.blake2b(np.asarray(ids, dtype="<i8").tobytes(), digest_size=8).hexdigest()


def weights_table(rows: Sequence[str], tokens: Sequence[str], weights: Any) -> pa.Table:
    """Rows of such a file; `weights` is a list of lists."""
    return pa.table({"row": list(rows), "tokens": list(tokens), "weights": weights}, SCHEMA)
