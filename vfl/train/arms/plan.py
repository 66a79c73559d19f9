"""The runs of a study: each arm with each learning rate and seed, a recipe and a folder for each."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vfl.errors import InputError
from vfl.io.json_files import write_text
from vfl.io.run_folder import differing
from vfl.probes.functions import PAPER_FUNCTIONS
from vfl.probes.style import STYLES
from vfl.train.arms.axes import Arm, arms_of
from vfl.train.recipe import Recipe, read_recipe
from vfl.train.run import REPORT
from vfl.train.study_config import StudyConfig

RATE = "learning_rate"


@dataclass(frozen=True)
class ArmRun:
    """One run of a study.

    Attributes:
        arm: its name.
        rate: its learning rate; None where the recipe leaves that to TRL.
        seed: its seed.
        values: its recipe.
        recipe: where that lies, beside its folder.
        folder: its results.
    """

    arm: str
    rate: float | None
    seed: int
    values: dict[str, Any]
    recipe: Path
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether it came to its end: its report is written last."""
        return (self.folder / REPORT).exists()

    @property
    def label(self) -> str:
        """For a person."""
        rate = "" if self.rate is None else f", learning rate {self.rate:g}"
        return f"{self.arm}{rate}, seed {self.seed}"


@dataclass(frozen=True)
class Study:
    """What is compared.

    Attributes:
        arms: in the order of tables.
        runs: seed by seed, so that an unfinished study has all arms.
        new: groups of the evaluation that are the new skill, or names of data sets whose groups are; none where the
            recipe does not say.
        validation: share of the new skill's items that chooses among learning rates.
        out: the folder.
    """

    arms: tuple[Arm, ...]
    runs: tuple[ArmRun, ...]
    new: tuple[str, ...]
    validation: float
    out: Path


def plan_study(recipe: Path, overrides: Sequence[str], out: Path, names: Sequence[str] = ()) -> Study:
    """The runs of a recipe's study; nothing is written.

    Args:
        recipe: YAML file.
        overrides: `key=value` over it, such as study.learning_rates=1e-3,5e-3.
        out: folder of the study.
        names: only these arms.

    Raises:
        InputError: for a recipe that is invalid or evaluates nothing, for arms that can't be compared, and when `out`
            holds runs with other settings.
    """
    base = read_recipe(recipe, overrides)
    if not base.evaluation.wanted:
        raise InputError(f"{recipe} evaluates nothing, so there would be nothing to compare. Give its `evaluation`.")
    study = base.study or StudyConfig()
    new = _new_skill(base, study)
    if len(study.learning_rates) > 1 and not new:
        raise InputError(
            "Several learning rates are to be compared, and nothing says by which skill. Name the groups of the "
            "evaluation that are new: study.new."
        )
    arms = arms_of(base, names)
    own = base.trainer.get(RATE)
    rates: tuple[Any, ...] = study.learning_rates or (own,)
    runs = [
        _run(arm, rate, seed, out, own)
        for seed in range(base.seed, base.seed + study.seeds)
        for arm in arms
        for rate in rates
    ]
    if twice := [folder.name for folder, times in Counter(run.folder for run in runs).items() if times > 1]:
        raise InputError(f"Two arms would share the folder {twice[0]}: give them names that differ in letters.")
    for run in runs:
        _refuse_other_settings(run, out)
    return Study(tuple(arms), tuple(runs), tuple(new), study.validation, out)


def _new_skill(base: Recipe, study: StudyConfig) -> tuple[str, ...]:
    """Names of the new skill's groups: those that were named, the data sets, or the functions that are trained.

    Raises:
        InputError: for a name that is surely not measured; before hours of training rather than after them.
    """
    wanted = base.evaluation
    generated = wanted.functions or (PAPER_FUNCTIONS if wanted.probes in STYLES else ())
    known = [*wanted.data, *(generated if wanted.probes is not None else ())]
    if wanted.probes is not None and not generated:  # a suite of one's own, which is not read yet
        return study.new or tuple(wanted.data) or base.layers.functions
    for name in study.new:
        if name.partition("/")[0] not in wanted.data and name not in known:
            raise InputError(f"study.new names {name!r}, which is not measured; measured are {', '.join(known)}.")
    return study.new or tuple(wanted.data) or tuple(name for name in base.layers.functions if name in known)


def write_recipes(study: Study) -> None:
    """A recipe for each run, beside its folder."""
    for run in study.runs:
        run.recipe.parent.mkdir(parents=True, exist_ok=True)
        write_text(run.recipe, yaml.safe_dump(run.values, sort_keys=False, allow_unicode=True))


def _run(arm: Arm, rate: float | None, seed: int, out: Path, own: float | None) -> ArmRun:
    # The recipe's own rate is no part of the name, so that a study to which rates are added keeps what it has.
    name = _slug(f"{arm.name}-{seed}" if rate == own else f"{arm.name}-lr{rate:g}-{seed}")
    values = {**arm.values, "seed": seed, "out": str(out / name), "layers": dict(arm.values["layers"])}
    if values["layers"]["arm"] != "full":
        values["layers"]["seed"] = seed
    if rate is not None:
        values["trainer"] = {**values["trainer"], RATE: rate}
    return ArmRun(arm.name, rate, seed, values, out / f"{name}.yaml", out / name)


def _slug(name: str) -> str:
    """A file's name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")


def _refuse_other_settings(run: ArmRun, out: Path) -> None:
    if not (run.recipe.exists() and run.folder.exists()):
        return
    before = read_recipe(run.recipe).model_dump(mode="json", by_alias=True, exclude={"study"})
    now = Recipe.model_validate(run.values).model_dump(mode="json", by_alias=True, exclude={"study"})
    if other := [text for _, text in differing(before, now)]:
        raise InputError(
            f"{out} holds an experiment with other settings: {run.folder.name} has {', '.join(other)}. Give another "
            "folder, name the arm otherwise, or remove that run."
        )
