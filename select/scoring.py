"""Score data once, to select from it many times: `vfl select score`, and the same for launchers:

torchrun --nproc-per-node 8 --module vfl.select.scoring --config score.yaml [key=value ...] [--overwrite]
accelerate launch --module vfl.select.scoring data=llava.json map=map.json out=scores
deepspeed --module vfl.select.scoring --config score.yaml

Every process takes the next part that nobody works on, so that none waits for another; several machines do the same
over a folder that all see. A run that was stopped, however, goes on with the same command: finished parts stay.
"""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from vfl.atomic import replacing
from vfl.config import read_yaml, set_dotted, validated
from vfl.data import BadRow, read
from vfl.errors import InputError
from vfl.functionmap import FunctionMap
from vfl.localize import identify, load_from
from vfl.models.vlm import VLM
from vfl.select.ablations import ablations_of
from vfl.select.claims import Claims
from vfl.select.scorer import Scorer, mean_embedding
from vfl.select.settings import NOT_MEASURED, ScoreConfig
from vfl.select.shards import (
    ALL_ERRORS,
    CLAIMS,
    MANIFEST,
    PLAN,
    Plan,
    Rows,
    Walker,
    check_same,
    clear,
    finish,
    is_done,
    missing,
    part_name,
    read_plan,
    save,
    sources_of,
    tidy,
    write_json,
)

logger = logging.getLogger(__name__)

MEAN = "mean.npy"
SHOWN = 3  # errors in a message
LOOK_AFTER = 5.0  # seconds between looks at how far all are


def score(
    config: ScoreConfig,
    *,
    data: Any = None,
    vlm: VLM | None = None,
    fmap: FunctionMap | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Score the data that a configuration names, or go on with it; under a launcher, together with the other processes.

    Args:
        config: what to score and how.
        data: in place of `config.data`, such as a `datasets.Dataset`.
        vlm: in place of the model that the configuration names.
        fmap: in place of `config.map`.
        overwrite: replace the scores of another run.
        progress: show a bar.

    Returns:
        The folder with manifest.json, parts/ and errors.parquet.

    Raises:
        InputError: for settings, data, map or model that can't be used, when `out` holds another run's scores, for the
            first bad row where `strict`, or when no row can be scored.
    """
    if overwrite:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise InputError(f"--overwrite can't be used by several processes at once; remove {config.out} yourself.")
        clear(config.out)
    if config.ray is not None:
        if data is not None or vlm is not None or fmap is not None:
            raise InputError("On Ray, data, model and map are read by the workers: name their paths.")
        from vfl.select.onray import score_on_ray

        plan = score_on_ray(config, progress=progress)
        return _finished(config, plan)
    with Worker(config, data=data, vlm=vlm, fmap=fmap) as worker:
        shown = progress and int(os.environ.get("RANK", "0")) == 0
        _work(worker, shown)
        return _finished(config, worker.plan)


def score_data(
    data: Any,
    *,
    out: str | Path,
    model: str | Path | VLM | None = None,
    map: str | Path | FunctionMap | None = None,
    overwrite: bool = False,
    progress: bool = True,
    **settings: Any,
) -> Path:
    """Score data from a notebook; see `score`.

        scores = vfl.score_data(dataset, model="Qwen/Qwen2.5-VL-3B-Instruct", map="map.json", out="scores")
        subset = vfl.filter_data(scores, dataset, budget="20%")

    Args:
        data: a `datasets.Dataset`, or paths of files, folders of shards or saved datasets.
        out: folder for the scores; what is there already is not scored again.
        model: folder, hub id, a loaded model, or None for the embedded test model.
        map: function map, or its path.
        overwrite: replace the scores of another run in `out`.
        progress: show a bar.
        settings: fields of `ScoreConfig`, such as images, layers, ablation, batch.
    """
    paths = [data] if isinstance(data, str | Path) else data
    files = isinstance(paths, list | tuple) and all(isinstance(one, str | Path) for one in paths)
    given: dict[str, Any] = {
        "data": paths if files else None,
        "model": None if model is None or isinstance(model, VLM) else str(model),
        "map": None if isinstance(map, FunctionMap) else map,
        "out": out,
        **settings,
    }
    given = {key: value for key, value in given.items() if value is not None}
    config = validated(ScoreConfig, given, source="settings")
    return score(
        config,
        data=None if files else data,
        vlm=model if isinstance(model, VLM) else None,
        fmap=map if isinstance(map, FunctionMap) else None,
        overwrite=overwrite,
        progress=progress,
    )


class Worker:
    """One process's share of a run: the model, the plan that all agreed on, and the data.

    A context manager. Args and errors as of `score`.
    """

    def __init__(
        self, config: ScoreConfig, *, data: Any = None, vlm: VLM | None = None, fmap: FunctionMap | None = None
    ) -> None:
        self.config, self.out = config, config.out
        source = data if data is not None else list(config.data or ())
        if data is None and not config.data:
            raise InputError("No data was named; give the files to score.")
        self.read: Callable[[], Rows] = partial(
            read,
            source,
            images=config.images,
            format=config.format,
            split=config.split,
            allow_remote=config.allow_remote,
        )
        self.read()  # what is wrong with paths and formats is found before the model is loaded
        if fmap is None and config.map is not None:
            fmap = FunctionMap.load(config.map)
        self.vlm = vlm or load_from(_on_own_device(config))
        self.claims = Claims(config.out / CLAIMS, config.expiry)
        self.plan = self._agree(source, fmap)
        self.scorer = Scorer(
            self.vlm,
            self.plan.functions,
            how=config.ablation,
            mean=self._mean() if config.ablation == "mean" else None,
            limit=config.max_length,
            batch=config.batch,
            workers=config.workers,
            source_column=config.source_column,
            strict=config.strict,
        )
        self.walker = Walker(self.read, self.plan)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.scorer.__exit__()

    def score_part(self, part: int, on_rows: Callable[[int], None] = lambda count: None) -> None:
        """Score a part and save it, unless it is done."""
        if not is_done(self.out, part):
            save(self.out, part, self.scorer.score(self.walker.rows_of(part), on_rows))

    def _agree(self, source: Any, fmap: FunctionMap | None) -> Plan:
        """The folder's plan if there is one, which then has to be this run's; else this process or another makes it."""
        model = identify(self.vlm)
        functions = ablations_of(self.config, fmap, model)
        image_processor, template = self.vlm.processor.image_processor, self.vlm.chat_template
        encoding = f"{image_processor.to_json_string()}\n{template or self.vlm.processor.chat_template}"
        settings = self.config.model_dump(mode="json")
        map_hash = None if fmap is None else sha256(fmap.to_json().encode()).hexdigest()
        here = Plan(
            model={
                **model.model_dump(),
                "parameters": sum(weight.numel() for weight in self.vlm.model.parameters()),
                "dtype": str(self.vlm.dtype).removeprefix("torch."),
            },
            map=None if fmap is None else {"path": _absolute(self.config.map), "sha256": map_hash},
            functions=functions,
            measured={key: value for key, value in settings.items() if key not in NOT_MEASURED}
            | {"encoding": sha256(encoding.encode()).hexdigest()},
            sources=[],
            rows=0,
            shard_rows=self.config.shard_rows,
            settings=settings
            | {
                "data": None if self.config.data is None else [_absolute(path) for path in self.config.data],
                "images": _absolute(self.config.images),
            },
        )
        while True:
            there = read_plan(self.out)
            if there is not None:
                here.sources = sources_of(source, there.sources)
                check_same(self.out, there, here)
                return there
            with self.claims.hold("plan") as held:
                if held and read_plan(self.out) is None:
                    here.sources = sources_of(source)
                    here.rows = self._count()
                    write_json(self.out / PLAN, here.model_dump(mode="json"))
            if not held:
                time.sleep(_pause(self.config))

    def _count(self) -> int:
        """The rows of the data, read once to the end: a broken file is found before anything is scored."""
        count = 0
        for row in self.read():
            if self.config.strict and isinstance(row, BadRow):
                raise InputError(f"{row.where} ({row.uid}): {row.reason}. Mend the row, or leave out --strict.")
            count += 1
        if not count:
            raise InputError("The data holds no rows.")
        return count

    def _mean(self) -> torch.Tensor:
        """The mean vision embedding, from the run's folder: the same for all processes and after a restart."""
        path = self.out / MEAN
        while not path.exists():
            with self.claims.hold("mean") as held:
                if held and not path.exists():
                    mean = mean_embedding(self.vlm, self.read(), self.config.mean_images)
                    with replacing(path) as temporary, temporary.open("wb") as handle:
                        np.save(handle, mean.numpy())
            if not held:
                time.sleep(_pause(self.config))
        return torch.from_numpy(np.load(path))


def _work(worker: Worker, progress: bool) -> None:
    """Score parts until all are done, by this process or by others."""
    plan, out = worker.plan, worker.out
    with tqdm(total=plan.rows, desc="scoring", unit=" samples", disable=not progress, smoothing=0.05) as bar:

        def show(count: int) -> None:
            bar.update(count)

        def catch_up(left: Sequence[int]) -> float:
            """Count what others did."""
            bar.n = max(bar.n, plan.rows - sum(map(plan.rows_of, left)))
            bar.refresh()
            return time.monotonic()

        left = missing(out, plan)
        bar.initial = plan.rows - sum(map(plan.rows_of, left))  # or the rate would count what is done already
        while left:
            took, shown = False, catch_up(left)
            for part in left:
                if progress and time.monotonic() - shown > LOOK_AFTER:
                    shown = catch_up(missing(out, plan))
                if is_done(out, part):
                    continue
                with worker.claims.hold(part_name(part)) as held:
                    if held:
                        took = True
                        worker.score_part(part, show)
            if not took:
                time.sleep(_pause(worker.config))
            left = missing(out, plan)
        catch_up(left)


def _finished(config: ScoreConfig, plan: Plan) -> Path:
    """The folder, once one process has written its manifest."""
    out = config.out
    claims = Claims(out / CLAIMS, config.expiry)
    while not (out / MANIFEST).exists():
        with claims.hold("manifest") as held:
            if held and not (out / MANIFEST).exists():
                finish(out, plan)
        if not held:
            time.sleep(_pause(config))
    tidy(out)
    return _judged(out, strict=config.strict)


def _judged(out: Path, *, strict: bool) -> Path:
    """Say how many rows could not be scored.

    Raises:
        InputError: where `strict`, or when none could.
    """
    counts = json.loads((out / MANIFEST).read_text(encoding="utf-8"))["counts"]
    if counts["errors"]:
        errors = pq.ParquetFile(out / ALL_ERRORS)
        first = next(errors.iter_batches(SHOWN)).to_pylist()
        some = "; ".join(f"{row['where']} ({row['uid']}): {row['reason']}" for row in first)
        told = f"{counts['errors']:,} of {counts['rows']:,} rows could not be scored (errors.parquet): {some}"
        if strict or not counts["scored"]:
            raise InputError(told)
        logger.warning("%s%s", told, "; ..." if counts["errors"] > len(first) else "")
    return out


def _on_own_device(config: ScoreConfig) -> ScoreConfig:
    """Under a launcher, the GPU of this process, unless devices are named."""
    local = os.environ.get("LOCAL_RANK")
    if local is None or config.device is not None or not torch.cuda.is_available():
        return config
    if config.device_map is not None and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        raise InputError("device_map spreads one model over all devices; start one process a machine, or leave it out.")
    return config.model_copy(update={"device": f"cuda:{int(local) % torch.cuda.device_count()}"})


def _pause(config: ScoreConfig) -> float:
    """Seconds between looks at what others do."""
    return min(1.0, config.expiry / 10)


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 for bad input, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="vfl.select.scoring", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help="such as out=scores or layers.counting=[3]")
    parser.add_argument("--config", type=Path, help="YAML file with settings")
    parser.add_argument("--overwrite", action="store_true", help="replace another run's scores")
    # DeepSpeed's launcher adds it; the rank is in the environment too.
    parser.add_argument("--local_rank", "--local-rank", help=argparse.SUPPRESS)
    options = parser.parse_intermixed_args(arguments)
    first = int(os.environ.get("RANK", "0")) == 0
    logging.basicConfig(level=logging.WARNING if first else logging.ERROR, format="%(levelname)s: %(message)s")
    try:
        values = read_yaml(options.config) if options.config else {}
        for override in options.settings:
            set_dotted(values, override)
        config = validated(ScoreConfig, values, source=str(options.config or "settings"))
        score(config, overwrite=options.overwrite, progress=first)
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)  # of any process: a bad row is met by one
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
