"""The controlled experiment: the same recipe in several arms and seeds, and one table of what came out.

    vfl arms recipes/micro/sft.yaml --seeds 5 --jobs 2 --out runs/micro/arms

Arms differ in the layers alone: `function` (the recipe's choice), `full`, `reversed` (all others) and `random` (as
many, drawn anew for each seed). Each run is a `vfl train` of its own in a folder of its own, so an interrupted
experiment goes on where it stopped.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from vfl.errors import InputError
from vfl.evaluate.result import EVALUATION
from vfl.io.progress import progress_bar
from vfl.io.run_folder import SETTINGS
from vfl.train.checkpoints import checkpoints
from vfl.train.recipe import Recipe, read_recipe
from vfl.train.run import ADAPTER, CHECKPOINTS

logger = logging.getLogger(__name__)

ARMS = ("function", "full", "reversed", "random")
LOG = "log.txt"


@dataclass(frozen=True)
class ArmRun:
    """One run of the experiment."""

    arm: str
    seed: int
    recipe: Path  # the recipe it is run with, written beside its folder
    folder: Path

    @property
    def finished(self) -> bool:
        return (self.folder / ADAPTER).exists() and (self.folder / EVALUATION).exists()


def plan_runs(
    recipe: Path, overrides: Sequence[str], out: Path, arms: Sequence[str] = ARMS, seeds: int = 5
) -> list[ArmRun]:
    """Write a recipe for each run; seed by seed, so that an unfinished experiment has all arms.

    Raises:
        InputError: for a recipe that is invalid, evaluates nothing, or has no layers to compare with; and when `out`
            holds an experiment with another recipe.
    """
    base = read_recipe(recipe, overrides)
    if not base.evaluation.wanted:
        raise InputError(f"{recipe} evaluates nothing, so there would be nothing to compare. Give its `evaluation`.")
    if unknown := [arm for arm in arms if arm not in ARMS]:
        raise InputError(f"There is no arm {', '.join(unknown)}; choose from {', '.join(ARMS)}.")
    if base.layers.arm != "function" or base.layers.rule is not None:
        own = base.layers.rule or base.layers.arm
        raise InputError(f"The recipe's own arm is {own!r}; it must name the function's layers.")
    if seeds < 1:
        raise InputError(f"{seeds} seeds were asked for; expected at least 1.")
    return [_arm_run(base, out, arm, seed) for seed in range(base.seed, base.seed + seeds) for arm in arms]


def run_all(runs: Sequence[ArmRun], *, jobs: int = 1, launcher: Sequence[str] = (), progress: bool = True) -> None:
    """Train what is not finished, `jobs` at a time.

    Args:
        launcher: what starts a run on several processes, such as ["torchrun", "--nproc-per-node", "8"].

    Raises:
        InputError: when a run failed; its log says why, and the others are finished first.
    """
    waiting = [run for run in runs if not run.finished]
    failed: list[ArmRun] = []
    bar = progress_bar(total=len(runs), initial=len(runs) - len(waiting), desc="runs", disable=not progress)
    # Processes that each take all cores only wait for each other.
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // jobs))
    with bar, ThreadPoolExecutor(max_workers=jobs) as pool:
        for run, code in pool.map(lambda run: (run, _train(run, launcher, threads)), waiting):
            if code != 0:
                failed.append(run)
            bar.update()
    if failed:
        some = failed[0]
        raise InputError(
            f"{len(failed)} of {len(runs)} runs failed, first {some.arm} with seed {some.seed}: "
            f"{_last_line(some.folder / LOG)} The whole log is {some.folder / LOG}. Run again to go on."
        )


def _arm_run(base: Recipe, out: Path, arm: str, seed: int) -> ArmRun:
    folder = out / f"{arm}-{seed}"
    values = base.model_dump(mode="json", by_alias=True)
    values |= {"seed": seed, "out": str(folder)}
    values["layers"] |= {"arm": arm, "seed": seed}
    if arm == "full":
        values["layers"] = "full"
    recipe = out / f"{arm}-{seed}.yaml"
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    if recipe.exists() and recipe.read_text(encoding="utf-8") != text and folder.exists():
        raise InputError(f"{out} holds an experiment with other settings. Give another folder, or remove it.")
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(text, encoding="utf-8")
    return ArmRun(arm, seed, recipe, folder)


def _train(run: ArmRun, launcher: Sequence[str], threads: str) -> int:
    """Exit code of one run in processes of its own."""
    run.folder.mkdir(parents=True, exist_ok=True)
    start = [*launcher, "--module"] if launcher else [sys.executable, "-m"]
    started = (run.folder / SETTINGS).exists()
    going_on = started and bool(checkpoints(run.folder / CHECKPOINTS))
    flag = ["--resume"] if going_on else ["--overwrite"]
    command = [*start, "vfl.train.launch", str(run.recipe), *flag]
    with (run.folder / LOG).open("a", encoding="utf-8") as log:
        environment = os.environ | {"OMP_NUM_THREADS": threads}
        return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False).returncode


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("Error:") or "Error" in line]
    return (errors or lines or ["no output."])[-1]
