"""`vfl arms RECIPE [key=value ...] --out DIR`: a recipe in the function's layers, all, the others, and random ones.

vfl arms recipes/micro/sft.yaml --seeds 5 --jobs 2 --out runs/micro/arms
"""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from vfl.commands.options import Out, Overrides, Shared, config_options, split_shared, takes
from vfl.errors import InputError


@takes(config_options)
def command(
    recipe: Annotated[str | None, typer.Argument(metavar="RECIPE", help="YAML file; see recipes/.")] = None,
    overrides: Overrides = None,
    out: Out = None,
    arms: Annotated[str, typer.Option(help="Names, such as function,full.")] = "function,full,reversed,random",
    seeds: Annotated[int, typer.Option(help="Runs of each arm.")] = 5,
    jobs: Annotated[int, typer.Option(help="Runs at the same time.")] = 1,
    launcher: Annotated[
        str | None, typer.Option(help='What starts a run, such as "torchrun --nproc-per-node 8".')
    ] = None,
    *,
    shared: Shared,
) -> None:
    """Train the arms of the controlled experiment over several seeds and write one table; interrupted, it goes on.

    The recipe is the function's arm, with an evaluation. The runs, arms.json and arms.md go to --out (runs/arms).
    """
    from rich.console import Console
    from rich.markdown import Markdown

    from vfl.io.config import recipe_and_overrides
    from vfl.io.fields import split

    config, sets, _ = split_shared(shared)
    file, settings = recipe_and_overrides(recipe, overrides or (), config, sets)
    out = out or Path("runs/arms")
    try:
        from vfl.train.arms.run import plan_runs, run_all
        from vfl.train.arms.table import markdown, summarise_arms, write_table
    except ImportError as error:
        raise InputError(f'Training needs {error.name}, which is not installed: pip install "vfl[train]"') from error
    runs = plan_runs(file, settings, out, split(arms), seeds)
    run_all(runs, jobs=jobs, launcher=shlex.split(launcher or ""))
    table = summarise_arms(runs)
    write_table(table, out)
    console = Console()
    console.print(Markdown(markdown(table)))
    console.print(str(out / "arms.md"), markup=False, highlight=False, soft_wrap=True)
