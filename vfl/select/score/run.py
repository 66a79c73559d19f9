"""Score data once, to select from it many times: `vfl select score`, and the same for launchers:

torchrun --nproc-per-node 8 --module vfl.select.score.run --config score.yaml [key=value ...] [--overwrite]
accelerate launch --module vfl.select.score.run data=llava.json map=map.json out=scores
deepspeed --module vfl.select.score.run --config score.yaml

Every process takes parts that nobody works on, one after another, so that none waits for another; several machines do
the same over a folder that all see. A run that was stopped, however, goes on with the same command: finished parts
stay.
"""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from vfl.engine.memory import is_out_of_memory, not_enough_memory
from vfl.errors import InputError
from vfl.functionmap import FunctionMap
from vfl.io.config import read_config, validated
from vfl.io.disk import explained
from vfl.io.progress import progress_bar, say
from vfl.loading.beds import EMBEDDED_ID
from vfl.models.vlm import VLM
from vfl.select.choose.classes import classify
from vfl.select.score.pace import told
from vfl.select.score.result import Scores
from vfl.select.score.worker import Worker, pause
from vfl.select.settings import ScoreConfig
from vfl.select.shards.claims import Claims
from vfl.select.shards.part_files import ALL_ERRORS, PART, number_of, part_name
from vfl.select.shards.parts import (
    CLAIMS,
    FULL,
    MANIFEST,
    Plan,
    clear,
    finish,
    is_done,
    missing,
    tidy,
)
from vfl.select.shards.score_folder import CLASSES
from vfl.select.shards.stretches import next_part

logger = logging.getLogger(__name__)

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
            first bad row unless `on_bad_row` is skip, or when no row can be scored.
    """
    with explained(config.out, full=FULL):
        return _score(config, data=data, vlm=vlm, fmap=fmap, overwrite=overwrite, progress=progress)


def score_data(
    data: Any,
    *,
    out: str | Path,
    model: str | Path | VLM = EMBEDDED_ID,
    map: str | Path | FunctionMap | None = None,
    overwrite: bool = False,
    progress: bool = True,
    **settings: Any,
) -> Scores:
    """Score data from a notebook; see `score`.

        scores = vfl.score(dataset, model="Qwen/Qwen2.5-VL-3B-Instruct", map="map.json", out="scores")
        subset = vfl.filter(scores, dataset, budget="20%")

    Args:
        data: a `datasets.Dataset`, or paths of files, folders of shards or saved datasets.
        out: folder for the scores; what is there already is not scored again.
        model: folder, hub id, a loaded model, or "embedded", the test model.
        map: function map, or its path.
        overwrite: replace the scores of another run in `out`.
        progress: show a bar.
        settings: fields of `ScoreConfig`, such as images, layers, ablation, batch_size.

    Returns:
        The scores; `Path(scores)` is their folder.
    """
    paths = [data] if isinstance(data, str | Path) else data
    files = isinstance(paths, list | tuple) and all(isinstance(path, str | Path) for path in paths)
    values: dict[str, Any] = {
        "data": paths if files else None,
        "model": None if isinstance(model, VLM) else str(model),
        "map": None if isinstance(map, FunctionMap) else map,
        "out": out,
        **settings,
    }
    values = {key: value for key, value in values.items() if value is not None}
    config = validated(ScoreConfig, values, source="settings")
    folder = score(
        config,
        data=None if files else data,
        vlm=model if isinstance(model, VLM) else None,
        fmap=map if isinstance(map, FunctionMap) else None,
        overwrite=overwrite,
        progress=progress,
    )
    return Scores.load(folder)


def _score(
    config: ScoreConfig, *, data: Any, vlm: VLM | None, fmap: FunctionMap | None, overwrite: bool, progress: bool
) -> Path:
    if overwrite:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise InputError(f"--overwrite can't be used by several processes at once; remove {config.out} yourself.")
        clear(config.out)
    if config.ray is not None:
        if data is not None or vlm is not None or fmap is not None:
            raise InputError("On Ray, data, model and map are read by the workers: name their paths.")
        from vfl.select.score.ray import score_on_ray

        plan = score_on_ray(config, progress=progress)
        return _finished(config, plan)
    shown = progress and int(os.environ.get("RANK", "0")) == 0

    def share() -> Path:
        with Worker(config, data=data, vlm=vlm, fmap=fmap, progress=shown) as worker:
            _work(worker, shown)
            return _finished(config, worker.plan)

    try:
        return share()
    except FileNotFoundError:
        # Another process that took this one for dead has ended the run, and removed what this one was writing.
        if not (config.out / MANIFEST).exists():
            raise
        return share()  # it finds nothing left to do, once it has seen that the run was of the same settings


def _work(worker: Worker, progress: bool) -> None:
    """Score parts until all are done, by this process or by others."""
    plan, out = worker.plan, worker.out
    with progress_bar(total=plan.rows, desc="scoring", unit=" samples", disable=not progress, smoothing=0.05) as bar:
        expected: list[str] = []

        def show(count: int, ended: bool = False) -> None:
            bar.update(count)
            pace = worker.scorer.pace.seconds_a_row(ended=ended)
            if progress and not expected and pace is not None and bar.n < plan.rows:
                expected.append(told(pace, int(plan.rows - bar.n), worker.processes, worker.vlm.device))
                say(bar, expected[0])

        def catch_up(left: Sequence[int]) -> float:
            """Count what others did."""
            bar.n = max(bar.n, plan.rows - sum(map(plan.rows_of, left)))
            bar.refresh()
            return time.monotonic()

        left = missing(out, plan)
        bar.initial = plan.rows - sum(map(plan.rows_of, left))  # or the rate would count what is done already
        while left:
            took, shown = False, catch_up(left)
            held: dict[int, ExitStack] = {}
            try:
                for part in worker.score_parts(_claimed(worker, left, held), show):
                    took = True
                    held.pop(part).close()
                    show(0, ended=True)
                    if progress and time.monotonic() - shown > LOOK_AFTER:
                        shown = catch_up(missing(out, plan))
            finally:
                for claim in list(held.values()):
                    claim.close()
            if not took:
                time.sleep(pause(worker.config))
            left = missing(out, plan)
        catch_up(left)


def _claimed(worker: Worker, left: Sequence[int], held: dict[int, ExitStack]) -> Iterator[int]:
    """Those of the parts that are this process's now; `held` gets what gives each back."""
    waiting, last = set(left), None
    while waiting:
        taken = {number_of(name) for name in worker.claims.held(PART)}
        free = sorted(waiting - taken)
        part = next_part(free, taken, last) if free else min(waiting)  # a claim may be a dead process's
        waiting.remove(part)
        with ExitStack() as stack:
            if (
                not is_done(worker.out, part)
                and stack.enter_context(worker.claims.hold(part_name(part)))
                and not is_done(worker.out, part)
            ):
                held[part] = stack.pop_all()
                last = part
                yield part


def _finished(config: ScoreConfig, plan: Plan) -> Path:
    """The folder, once one process has written its manifest."""
    out = config.out
    claims = Claims(out / CLAIMS, config.expiry)
    while not (out / MANIFEST).exists():
        with claims.hold("manifest") as held:
            if held and not (out / MANIFEST).exists():
                finish(out, plan)
        if not held:
            time.sleep(pause(config))
    if not (out / CLASSES).exists():  # several processes at once write the same
        classify(out)
    tidy(out)
    return _judged(out, strict=config.on_bad_row == "error")


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
        message = f"{counts['errors']:,} of {counts['rows']:,} rows could not be scored (errors.parquet): {some}"
        if strict or not counts["scored"]:
            raise InputError(message)
        logger.warning("%s%s", message, "; ..." if counts["errors"] > len(first) else "")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 for bad input, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="vfl.select.score.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help="such as out=scores or layers.counting=[3]")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with settings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="the same as key=value")
    parser.add_argument("--overwrite", action="store_true", help="replace another run's scores")
    # DeepSpeed's launcher adds it; the rank is in the environment too.
    parser.add_argument("--local_rank", "--local-rank", help=argparse.SUPPRESS)
    options = parser.parse_intermixed_args(arguments)
    first = int(os.environ.get("RANK", "0")) == 0
    logging.basicConfig(level=logging.WARNING if first else logging.ERROR, format="%(levelname)s: %(message)s")
    try:
        config = read_config(ScoreConfig, options.config, {}, [*options.settings, *options.set])
        score(config, overwrite=options.overwrite, progress=first)
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)  # of any process: a bad row is met by one
        return 2
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        print(f"Error: {not_enough_memory(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
