"""One process's share of a scoring run: the model, the plan that all processes agree on, and the parts it takes."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vfl.data import BadRow, Sample
from vfl.data.hashing import Hashes
from vfl.data.reading import open_data
from vfl.data.uids import Unnamed
from vfl.errors import InputError
from vfl.functionmap import PIXELS, FunctionMap
from vfl.io.atomic import replacing
from vfl.io.json_files import write_json
from vfl.io.progress import progress_bar
from vfl.io.run_folder import write_settings
from vfl.launching.own_device import on_own_device
from vfl.loading.config import identify, load_from
from vfl.models.vlm import VLM
from vfl.select.score.ablations import ablations_of, sharing_layers
from vfl.select.score.scorer import Scorer, mean_of_rows
from vfl.select.settings import NOT_MEASURED, ScoreConfig
from vfl.select.shards.claims import Claims
from vfl.select.shards.data_files import bytes_of, sources_of
from vfl.select.shards.part_files import digest_of
from vfl.select.shards.parts import (
    CLAIMS,
    PLAN,
    Plan,
    Walker,
    check_same,
    read_plan,
    repair,
    save,
)
from vfl.select.shards.row_index import INDEX, open_index, write_index

logger = logging.getLogger(__name__)

PART_ROWS, LEAST_ROWS, PARTS_EACH, PART_BYTES = 2048, 64, 8, 2**28
"""Rows of a part, at most and at least; parts that a process gets, at least; bytes of the data that a part holds."""
BYTES: dict[str, Any] = {"unit": "B", "unit_scale": True}
MEAN = "mean.safetensors"
"""The mean vision embedding, with the run's digest and its own: another run's, or a damaged one, is made anew."""


class Worker:
    """One process's share of a run: the model, the plan that all agreed on, and the data.

    A context manager. Args and errors as of `score`; `progress` shows how far the first reading of the data is.
    """

    def __init__(
        self,
        config: ScoreConfig,
        *,
        data: Any = None,
        vlm: VLM | None = None,
        fmap: FunctionMap | None = None,
        progress: bool = False,
    ) -> None:
        self.config, self.out, self.progress = config, config.out, progress
        source = data if data is not None else list(config.data or ())
        if data is None and not config.data:
            raise InputError("No data was named; give the files to score.")
        self.data = open_data(  # what is wrong with paths and formats is found before the model is loaded
            source,
            images=config.images,
            format=config.format,
            split=config.split,
            allow_remote=config.allow_remote,
            image_column=config.image_column,
        )
        if fmap is None and config.map is not None:
            fmap = FunctionMap.load(config.map)
        self.vlm = vlm or load_from(on_own_device(config))
        self.claims = Claims(config.out / CLAIMS, config.expiry)
        self.plan = self._agree(source, fmap)
        repair(self.out, self.plan)
        self.run = digest_of(self.plan.model_dump(mode="json"))
        self.scorer = Scorer(
            self.vlm,
            self.plan.functions,
            ablation=config.ablation,
            mean=self._mean() if config.ablation == "mean" else None,
            limit=config.max_length,
            batch=config.batch_size,
            workers=config.workers,
            encoders=config.encoders,
            source_column=config.source_column,
            strict=config.on_bad_row == "error",
        )
        index = open_index(self.out / INDEX, self.plan.rows, [source["sha256"] for source in self.plan.sources])
        self.walker = Walker(self.data, self.plan, index)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.scorer.__exit__()

    def score_parts(self, parts: Iterable[int], on_rows: Callable[[int], None] = lambda count: None) -> Iterator[int]:
        """Score parts and save each, whose number comes then. `parts` is read in another thread, one part ahead."""
        rows = ((part, self.walker.rows_of(part)) for part in parts)
        for part, scores in self.scorer.score_parts(rows, on_rows):
            save(self.out, part, scores, self.run)
            yield part

    def _agree(self, source: Any, fmap: FunctionMap | None) -> Plan:
        """The folder's plan if there is one, which then has to be this run's; else this process or another makes it."""
        model = identify(self.vlm)
        ablated = ablations_of(self.config, fmap, model)
        together = sharing_layers(ablated)
        image_processor, template = self.vlm.processor.image_processor, self.vlm.chat_template
        encoding = f"{image_processor.to_json_string()}\n{template or self.vlm.processor.chat_template}"
        settings = self.config.model_dump(mode="json", exclude_none=True)
        map_hash = None if fmap is None else sha256(fmap.to_json().encode()).hexdigest()
        here = Plan(
            model={
                **model.model_dump(),
                "parameters": sum(weight.numel() for weight in self.vlm.model.parameters()),
                "dtype": str(self.vlm.dtype).removeprefix("torch."),
            },
            map=None
            if fmap is None
            else {
                "path": absolute(self.config.map),
                "sha256": map_hash,
                **fmap.model.model_dump(include=set(PIXELS), exclude_none=True),
            },
            functions={name: ablated[names[0]] for name, names in together.items()},
            together={name: names for name, names in together.items() if len(names) > 1},
            measured={key: value for key, value in settings.items() if key not in NOT_MEASURED}
            | {"encoding": sha256(encoding.encode()).hexdigest()},
            sources=[],
            rows=0,
            shard_rows=self.config.shard_rows or 0,
            settings=settings
            | {
                "data": None if self.config.data is None else [absolute(path) for path in self.config.data],
                "images": absolute(self.config.images),
            },
        )
        while True:
            there = read_plan(self.out)
            if there is not None:
                here.sources = self._hashed(source, there.sources)
                here.shard_rows = here.shard_rows or there.shard_rows
                check_same(self.out, there, here)
                return there
            with self.claims.hold("plan") as held:
                if held and read_plan(self.out) is None:
                    here.rows, here.sources = self._read_once(source)
                    here.shard_rows = here.shard_rows or rows_of_parts(
                        here.rows, sum(source.get("bytes", 0) for source in here.sources), self.processes
                    )
                    write_settings(self.out, {key: value for key, value in here.settings.items() if key != "out"})
                    write_json(self.out / PLAN, here.model_dump(mode="json"))
            if not held:
                time.sleep(pause(self.config))

    @property
    def processes(self) -> int:
        """That score together."""
        return self.config.ray.workers if self.config.ray else int(os.environ.get("WORLD_SIZE", "1"))

    def _hashed(self, source: Any, known: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The data's files; read are those that look changed since they were `known`."""
        with self._bar("hashing", **BYTES) as bar:
            return sources_of(source, known, self.config.split, Hashes(bar.update))

    def _bar(self, desc: str, **shown: Any) -> Any:
        return progress_bar(desc=desc, disable=not self.progress, leave=False, delay=1, **shown)

    def _read_once(self, source: Any) -> tuple[int, list[dict[str, Any]]]:
        """Count, hash and index the data in one reading; how many rows there are, and its files."""
        sources: list[dict[str, Any]] = []
        hashes, files = Hashes(), all(part.container != "hf" for part in self.data.parts)
        shown = {**BYTES, "total": bytes_of(source, self.config.split)} if files else {"unit": " rows"}
        with self._bar("reading the data", **shown) as bar, self._bar("hashing", **BYTES) as other_bar:
            # data sets are mapped into memory, and hashed when that is done
            hashes.on_bytes = bar.update if files else other_bar.update

            def note(row: Sample | BadRow) -> None:
                if self.config.on_bad_row == "error" and isinstance(row, BadRow):
                    raise InputError(
                        f"{row.where} ({row.uid}): {row.reason}. Mend the row, or leave such rows out with on_bad_row: "
                        "skip (--on-bad-row skip)."
                    )
                if not files:
                    bar.update()

            def hashed() -> list[str]:
                sources.extend(sources_of(source, None, self.config.split, hashes))
                return [fact["sha256"] for fact in sources]

            return write_index(self.out / INDEX, self.data, hashes, hashed, note), sources

    def _mean(self) -> torch.Tensor:
        """The mean vision embedding, from the run's folder: the same for all processes and after a restart."""
        path = self.out / MEAN
        while True:
            mean = read_mean(path, self.run)
            if mean is not None:
                return mean
            with self.claims.hold("mean") as held:
                if held and read_mean(path, self.run) is None:
                    mean = mean_of_rows(self.vlm, self.data.rows(Unnamed()), self.config.mean_images)
                    with replacing(path) as temporary:
                        save_file({"mean": mean}, temporary, {"of": _of(mean, self.run)})
            if not held:
                time.sleep(pause(self.config))


def read_mean(path: Path, run: str) -> torch.Tensor | None:
    """The mean embedding in a file; None where there is none, or it is damaged or another run's."""
    try:
        with safe_open(path, "pt") as file:
            mean: torch.Tensor = file.get_tensor("mean")
            facts = file.metadata() or {}
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        logger.warning("%s can't be read (%s): it is made anew", path, error)
        return None
    if facts.get("of") == _of(mean, run):
        return mean
    logger.warning("%s is of another run, or damaged: it is made anew", path)
    return None


def _of(mean: torch.Tensor, run: str) -> str:
    return f"{run} {sha256(mean.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()}"


def rows_of_parts(rows: int, size: int, processes: int) -> int:
    """Rows of a part where none are named: many, so that those of a batch are about equally long.

    Args:
        rows: of the data.
        size: its bytes; where rows hold their images, two parts of them must fit in memory.
        processes: that score; each should get a part many times.
    """
    fitting = rows * PART_BYTES // max(size, 1)
    return max(1, min(PART_ROWS, max(LEAST_ROWS, -(-rows // (PARTS_EACH * processes))), max(LEAST_ROWS, fitting)))


def pause(config: ScoreConfig) -> float:
    """Seconds between looks at what others do."""
    return min(1.0, config.expiry / 10)


def absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
