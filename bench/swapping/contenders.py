"""Who takes part: this engine, hooks, a cached prefix, and two interpretability libraries if installed."""

import importlib
import importlib.metadata
from collections.abc import Callable
from functools import partial

from bench.swapping.cached_prefix import sweep_by_cached_prefix
from bench.swapping.engine import sweep_by_engine
from bench.swapping.hooks import sweep_by_hooks
from bench.swapping.model import Answers, Task

Run = Callable[[], Answers]
ENGINE, PREFIX, HOOKS = "this engine", "cached prefix", "hooks"
# name -> (distribution, module here that prepares its run); `pip install --group bench` installs both.
LIBRARIES = {
    "nnsight": ("nnsight", "bench.swapping.nnsight_traces"),
    "TransformerLens": ("transformer-lens", "bench.swapping.lens_hooks"),
}
NAMES = (ENGINE, PREFIX, HOOKS, *LIBRARIES)


def installed(name: str) -> str | None:
    """The version of a library, or None where it is not installed."""
    try:
        return importlib.metadata.version(LIBRARIES[name][0])
    except importlib.metadata.PackageNotFoundError:
        return None


def prepare(name: str, task: Task) -> Run:
    """The sweep of `task` by a contender, ready to be run as often as wanted."""
    if name == ENGINE:
        return partial(sweep_by_engine, task)
    if name == PREFIX:
        return partial(sweep_by_cached_prefix, task)
    if name == HOOKS:
        return partial(sweep_by_hooks, task)
    run: Run = importlib.import_module(LIBRARIES[name][1]).prepare(task)
    return run
