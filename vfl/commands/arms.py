"""`vfl arms RECIPE [key=value ...] --out DIR`: a recipe in several arms, learning rates and seeds.

vfl arms recipes/micro/sft.yaml --seeds 5 --jobs 2 --out runs/micro/arms
vfl arms recipe.yaml --arms function,full,gradient --replay on,off --learning-rates 1e-3,5e-3 --dry
"""

import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vfl.commands.options import Out, Overrides, Shared, config_options, split_shared, takes
from vfl.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from vfl.train.arms.plan import Study


@takes(config_options, required=["recipe"])
def command(
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="YAML file with the recipe; see recipes/.")
    ] = None,
    overrides: Overrides = None,
    out: Out = None,
    arms: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Names from study.layers or study.arms, or function, full, reversed, random, auto, a rule.",
            show_default="those of the recipe's study, or function,full,reversed,random",
        ),
    ] = None,
    replay: Annotated[
        str | None, typer.Option(metavar="on,off", help="With the recipe's data.replay, without it, or both.")
    ] = None,
    modules: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Modules to compare: all, attention, mlp.")
    ] = None,
    learning_rates: Annotated[
        str | None,
        typer.Option(metavar="RATES", help="Such as 1e-3,5e-3; a validation set chooses each arm's."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Number of runs per arm.", show_default="5")] = None,
    jobs: Annotated[int, typer.Option(help="Number of runs at the same time, spread over the GPUs.", min=1)] = 1,
    launcher: Annotated[
        str | None,
        typer.Option(help='Command that starts a run, such as "torchrun --standalone --nproc-per-node 8".'),
    ] = None,
    dry: Annotated[
        bool, typer.Option("--dry", help="List the runs and which are left to do, without training.")
    ] = False,
    *,
    shared: Shared,
) -> None:
    """Compare arms of a recipe over seeds.

    Arms differ in layers, replay, modules or learning rates, and all take the same number of steps. The recipe needs an
    evaluation. The runs, arms.json, arms.md and arms.html go to --out (runs/arms). After an interruption the same
    command continues; finished runs are kept.
    """
    from rich.console import Console

    from vfl.io.config import recipe_and_overrides
    from vfl.io.fields import split

    config, sets, _ = split_shared(shared)
    file, settings = recipe_and_overrides(recipe, overrides or (), config, sets)
    axes = {"replay": replay, "modules": modules, "learning_rates": learning_rates}
    flags = [f"study.{name}=[{text}]" for name, text in axes.items() if text is not None]
    flags += [] if seeds is None else [f"study.seeds={seeds}"]
    try:
        from vfl.train.arms.dry import show_plan
        from vfl.train.arms.plan import plan_study, write_recipes
        from vfl.train.arms.run import holding, run_all
    except ImportError as error:
        raise InputError(f'Training needs {error.name}, which is not installed: pip install "vfl[train]"') from error
    study = plan_study(file, [*flags, *settings], out or Path("runs/arms"), split(arms or ""))
    console = Console()
    if dry:
        show_plan(study, jobs, console, spread=launcher is not None)
        return
    with holding(study):
        write_recipes(study)
        try:
            run_all(study, jobs=jobs, launcher=shlex.split(launcher or ""))
        except InputError:
            with suppress(InputError):  # why runs failed is what has to be said; what is finished is shown if it can be
                _show_results(study, console)
            raise
        _show_results(study, console)


def _show_results(study: "Study", console: "Console") -> None:
    """Tables of what is finished, on the terminal and in the folder."""
    from vfl.train.arms.grids import show
    from vfl.train.arms.summary import summarise
    from vfl.train.arms.table import write_results

    result = summarise(study)
    if result is None:
        return
    paths = write_results(result, study.out)
    show(result, console)
    for path in paths:
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)
