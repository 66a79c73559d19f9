"""Rows of data to rows of the score table: the model's own scores and one ablation a function, batch by batch."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import pyarrow as pa
import torch
from PIL import Image

from vfl.data import BadRow, Sample
from vfl.engine.teacher_forcing import Ablation, teacher_forced
from vfl.engine.vision_embeddings import mean_embedding
from vfl.errors import InputError
from vfl.models.vlm import VLM
from vfl.select.score.feeding import Entry, Failure, Feeder, Row
from vfl.select.score.pace import Pace
from vfl.select.shards.score_table import ERRORS, Part, measures, schema
from vfl.select.wording import answer, opening, question_terms

Rows = Iterable[tuple[int, Sample | BadRow]]
SOURCE_COLUMNS = ("source", "task", "dataset")


class Scorer:
    """Scores rows with one model; a context manager, since it decodes images in threads.

    Args:
        vlm: the model.
        functions: function -> layers to ablate.
        ablation: what text reads there instead of the image.
        mean: (d,) mean vision embedding, for ablation="mean".
        limit: most tokens a row; longer rows are errors.
        batch: rows of middle length at a time.
        workers: threads that decode images.
        encoders: threads that encode batches.
        source_column: column that tells a row's source; see `source_of`.
        strict: raise at the first row that can't be scored.
    """

    def __init__(
        self,
        vlm: VLM,
        functions: dict[str, list[int]],
        *,
        ablation: Ablation = "hide",
        mean: torch.Tensor | None = None,
        limit: int | None = None,
        batch: int = 16,
        workers: int = 4,
        encoders: int = 2,
        source_column: str | None = None,
        strict: bool = False,
    ) -> None:
        self.vlm, self.functions, self.ablation, self.mean = vlm, functions, ablation, mean
        self.batch, self.source_column, self.strict = batch, source_column, strict
        self.most_tokens = [float("inf")]  # in a batch; found when memory runs out
        self.pace = Pace()
        limit = context_of(vlm) if limit is None else min(limit, context_of(vlm))
        self.feeder = Feeder(vlm, limit, workers, encoders)

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, *_: object) -> None:
        self.feeder.__exit__()

    def score(self, rows: Rows, on_rows: Callable[[int], None] = lambda count: None) -> Part:
        """Score the rows of one part; see `score_parts`."""
        ((_, part),) = self.score_parts(iter([(0, rows)]), on_rows)
        return part

    def score_parts(
        self, parts: Iterator[tuple[int, Rows]], on_rows: Callable[[int], None] = lambda count: None
    ) -> Iterator[tuple[int, Part]]:
        """Score parts of the data one after another; what comes back does not depend on other parts.

        Args:
            parts: numbers of parts, each with its rows, which are given with their numbers in the data: few enough to
                hold in memory. Is read in a thread of its own, a part ahead of the model.
            on_rows: told how many rows are done, batch by batch.

        Raises:
            InputError: where `strict`, for the first row that can't be scored.
        """
        bad: dict[int, list[Failure]] = {}
        scored: list[dict[str, Any]] = []
        failures: list[Failure] = []
        for part, ready in self.feeder.batches(_entries(parts, bad), self.batch, self.most_tokens):
            self._fail(failures, bad.pop(part, []), on_rows)
            if ready is None:
                yield part, self._tables(scored, failures)
                scored, failures = [], []
                continue
            self._fail(failures, ready.failures, on_rows)
            if ready.batch is not None:
                began = time.monotonic()
                values = self._measure(ready.batch)
                self.pace.tokens_a_row = self.feeder.tokens_a_row
                self.pace.add(ready.batch.inputs["input_ids"].numel(), time.monotonic() - began)
                scored += [self._row(row, measured) for row, measured in zip(ready.rows, values, strict=True)]
                on_rows(len(ready.rows))

    def _row(self, row: Row, values: dict[str, Any]) -> dict[str, Any]:
        sample = row.entry.sample
        return values | {
            "uid": sample.uid,
            "position": row.entry.position,
            "source": source_of(sample, self.source_column),
            "images": len(sample.images),
            "question_terms": question_terms(sample.messages),
            "opening": opening(sample.messages),
            "answer": answer(sample.messages),
            "text_hash": row.text_hash,
            "image_hash": row.image_hash,
        }

    def _tables(self, scored: list[dict[str, Any]], failures: list[Failure]) -> Part:
        scored.sort(key=lambda row: int(row["position"]))
        failures.sort(key=lambda failure: failure.position)
        return Part(
            pa.Table.from_pylist(scored, schema(self.functions)),
            pa.Table.from_pylist([vars(failure) for failure in failures], ERRORS),
        )

    def _measure(self, batch: Any) -> list[dict[str, Any]]:
        everywhere = {"no image": list(range(self.vlm.num_layers))}
        named = {f"function {name}": layers for name, layers in self.functions.items()}
        if self.ablation == "hide":
            scores = [teacher_forced(self.vlm, batch, everywhere | named)]
        else:  # the no-image gap is always that of a hidden image
            scores = [
                teacher_forced(self.vlm, batch, everywhere),
                teacher_forced(self.vlm, batch, named, ablation=self.ablation, mean=self.mean),
            ]
        fitting = min(one.fitting for one in scores)
        if fitting < len(batch.answers):
            self.most_tokens[0] = min(self.most_tokens[0], float(fitting * batch.answers.shape[1]))
        return measures(batch, self.vlm.parts.image_token_id, scores, list(self.functions))

    def _fail(self, failures: list[Failure], more: Sequence[Failure], on_rows: Callable[[int], None]) -> None:
        if more and self.strict:
            raise InputError(
                f"{more[0].where} ({more[0].uid}): {more[0].reason}. Mend the row, or leave such rows out with "
                "on_bad_row: skip (--on-bad-row skip): then they are recorded in errors.parquet."
            )
        failures.extend(more)
        on_rows(len(more))


def _entries(parts: Iterator[tuple[int, Rows]], bad: dict[int, list[Failure]]) -> Iterator[tuple[int, list[Entry]]]:
    """The usable rows of each part; `bad` gets the others."""
    for part, rows in parts:
        entries: list[Entry] = []
        failures: list[Failure] = []
        for position, row in rows:
            if isinstance(row, BadRow):
                failures.append(Failure(row.uid, position, row.where, row.reason))
            else:
                entries.append(Entry(position, row))
        bad[part] = failures
        yield part, entries


def context_of(vlm: VLM) -> int:
    """Most tokens that the model takes."""
    return int(vlm.model.config.get_text_config(decoder=True).max_position_embeddings)


def source_of(sample: Sample, column: str | None = None) -> str | None:
    """Where a row comes from: by its column `column` (else `source`, `task` or `dataset`), else its file's name."""
    names = (column,) if column is not None else SOURCE_COLUMNS
    told = next((sample.columns[name] for name in names if sample.columns.get(name) is not None), None)
    if told is not None or column is not None:
        return None if told is None else str(told)
    for mark in (" row ", " line ", " sample "):
        name, found, _ = sample.where.rpartition(mark)
        if found:
            return name
    return None


def mean_of_rows(vlm: VLM, rows: Iterable[Sample | BadRow], images: int) -> torch.Tensor:
    """(d,) the mean vision embedding of the first images of `rows`, as they enter the decoder.

    Raises:
        InputError: no row has an image that can be opened.
    """
    shown = (row for row in rows if isinstance(row, Sample) and row.images)
    opened = (image for sample in islice(shown, images) if (image := _opened(sample)) is not None)
    first = next(opened, None)
    if first is None:
        raise InputError("ablation: mean needs images, and no row has one that can be opened.")
    return mean_embedding(vlm, chain([first], opened)).cpu()


def _opened(sample: Sample) -> Image.Image | None:
    try:
        return sample.images[0].open()
    except InputError:
        return None  # it will be among the errors
