"""The token weights of a subset, row by row while its data is written."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from vfl.data import Sample
from vfl.data.token_weights import SCHEMA, row_digest, weights_table
from vfl.select.choose.filtering import CHUNK, chosen_rows
from vfl.select.choose.token_weights import weights_of


class WeightsWriter:
    """Writes the weights of the chosen rows, which `add` gets in the order of the data; a context manager.

    Attributes:
        facts: the file's name, the answer tokens so far, and those with weight 1.
    """

    def __init__(self, connection: Any, path: Path, threshold: float) -> None:
        columns = "kind, answer_tokens, token_hash, no_image_token_drops"
        self.rows = (row for table in chosen_rows(connection, columns) for row in _rows(table))
        self.writer = pq.ParquetWriter(path, SCHEMA)
        self.threshold = threshold
        self.pending: list[tuple[str, str, Any]] = []
        self.facts: dict[str, Any] = {"file": path.name, "tokens": 0, "kept": 0}

    def __enter__(self) -> "WeightsWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self.writer.close()

    def add(self, sample: Sample) -> None:
        """The next chosen row."""
        drops, count, tokens = next(self.rows)
        weights = weights_of(drops, count, self.threshold)
        self.facts["tokens"] += count
        self.facts["kept"] += int(weights.sum())
        self.pending.append((row_digest(sample), tokens, weights))
        if len(self.pending) >= CHUNK:
            self._flush()

    def _flush(self) -> None:
        if self.pending:
            self.writer.write_table(weights_table(*zip(*self.pending, strict=True)))
        self.pending = []


def _rows(table: Any) -> Any:
    drops = table["no_image_token_drops"]
    for number, kind in enumerate(table["kind"].to_pylist()):
        own = drops[number].values.to_numpy(False) if kind == "vision" else None
        yield own, table["answer_tokens"][number].as_py(), table["token_hash"][number].as_py()
