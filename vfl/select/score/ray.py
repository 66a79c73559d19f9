"""The same scoring on a Ray cluster (extra vfl[ray]): Ray Data deals the parts to actors that each hold the model.

Data, model and scores are on a disk that all machines see. A part whose actor dies is dealt out again, and parts that
are done are not scored twice; a run that was stopped goes on with the same command.
"""

import logging
from collections import deque
from pathlib import Path
from typing import Any

from vfl.errors import InputError
from vfl.io.disk import explained
from vfl.io.progress import progress_bar
from vfl.select.settings import RayConfig, ScoreConfig
from vfl.select.shards.parts import FULL, Plan, missing

try:
    import ray
    import ray.data
except ImportError as error:
    raise InputError('Scoring on Ray needs it installed: pip install "vfl[ray]"') from error

logger = logging.getLogger(__name__)

SPARE_CPUS = 2
"""Logical CPUs that no actor takes: Ray Data's own tasks wait for ever where actors hold all of them."""


def score_on_ray(config: ScoreConfig, *, progress: bool = True) -> Plan:
    """Score all parts that are missing; what was planned.

    Raises:
        InputError: the cluster has too few CPUs or GPUs, or as of `vfl.select.score.run.score`.
    """
    assert config.ray is not None
    settings = config.ray
    started = not ray.is_initialized()
    if started:
        _start(settings)
    try:
        _check(settings)
        config = _absolute(config)
        # The plan needs the model, which may not fit on this machine.
        try:
            remote = ray.remote(num_cpus=settings.cpus, num_gpus=settings.gpus)(_plan)
            plan: Plan = ray.get(remote.remote(config))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, InputError):
                raise error.cause from None
            raise
        left = missing(config.out, plan)
        if left:
            _score(config, plan, left, progress)
        return plan
    finally:
        if started:
            ray.shutdown()


class PartScorer:
    """An actor: scores the parts that it is given."""

    def __init__(self, config: ScoreConfig) -> None:
        from vfl.select.score.worker import Worker

        self.worker = Worker(config)

    def __call__(self, dealt: dict[str, Any]) -> dict[str, Any]:
        error = ""
        try:
            with explained(self.worker.out, full=FULL):
                deque(self.worker.score_parts(map(int, dealt["part"])), maxlen=0)
        except InputError as raised:  # Ray would wrap it in errors and tracebacks of its own
            error = str(raised)
        return {"part": dealt["part"], "error": [error] * len(dealt["part"])}


def _score(config: ScoreConfig, plan: Plan, left: list[int], progress: bool) -> None:
    assert config.ray is not None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    parts = ray.data.from_items([{"part": part} for part in left], override_num_blocks=len(left))
    actors = min(config.ray.workers, len(left))
    done = parts.map_batches(
        PartScorer,
        fn_constructor_args=(config,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=1),
        # By Ray Data's defaults, what a dying actor had is done again, and an error that is raised ends the run.
        num_cpus=config.ray.cpus,
        num_gpus=config.ray.gpus,
    )
    total = plan.rows
    with progress_bar(total=total, desc="scoring", unit=" samples", disable=not progress) as bar:
        bar.initial = bar.n = total - sum(map(plan.rows_of, left))
        for row in done.iter_rows():
            if row["error"]:
                raise InputError(row["error"])
            bar.update(plan.rows_of(int(row["part"])))


def _plan(config: ScoreConfig) -> Plan:
    from vfl.select.score.worker import Worker

    with explained(config.out, full=FULL), Worker(config) as worker:
        return worker.plan


def _start(settings: RayConfig) -> None:
    if settings.address is not None:
        try:
            ray.init(address=settings.address, log_to_driver=False)
        except ConnectionError as error:
            raise InputError(f"No Ray cluster at {settings.address!r}: {error}") from error
        return
    # Logical CPUs: more than there are cores may be declared.
    cpus = int(settings.workers * settings.cpus) + SPARE_CPUS
    ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False)


def _check(settings: RayConfig) -> None:
    there = ray.cluster_resources()
    for name, wanted, spare in (("CPU", settings.cpus, 1), ("GPU", settings.gpus, 0)):
        if wanted and settings.workers * wanted + spare > there.get(name, 0):
            raise InputError(
                f"{settings.workers} Ray workers of {wanted:g} {name} and {spare} to spare don't fit: the cluster has "
                f"{there.get(name, 0):g}. Use fewer workers, or declare more logical CPUs (ray start --num-cpus)."
            )


def _absolute(config: ScoreConfig) -> ScoreConfig:
    """The configuration with paths that do not depend on the working directory: workers have others."""
    paths: dict[str, Any] = {"out": config.out.absolute()}
    for name in ("images", "map", "chat_template"):
        given = getattr(config, name)
        paths[name] = None if given is None else Path(given).absolute()
    if config.data is not None:
        paths["data"] = tuple(path.absolute() for path in config.data)
    if config.model is not None and Path(config.model).expanduser().is_dir():
        paths["model"] = str(Path(config.model).expanduser().absolute())
    return config.model_copy(update=paths)
