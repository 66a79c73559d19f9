"""`vfl arms RECIPE [key=value ...] --out DIR`: a recipe in the function's layers, all, the others, and random ones.

vfl arms recipes/micro/sft.yaml --seeds 5 --jobs 2 --out runs/micro/arms
"""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from vfl.errors import InputError


def command(
    recipe: Annotated[Path, typer.Argument(help="YAML of the function's arm, with an evaluation.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings of every run.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the runs, arms.json and arms.md.")] = Path("runs/arms"),
    arms: Annotated[str, typer.Option(help="Names with commas between them.")] = "function,full,reversed,random",
    seeds: Annotated[int, typer.Option(help="Runs of each arm.")] = 5,
    jobs: Annotated[int, typer.Option(help="Runs at the same time.")] = 1,
    launcher: Annotated[
        str | None, typer.Option(help='What starts a run, such as "torchrun --nproc-per-node 8".')
    ] = None,
) -> None:
    """Train the arms of the controlled experiment over several seeds and write one table; interrupted, it goes on."""
    try:
        from vfl.train.arms.run import plan_runs, run_all
        from vfl.train.arms.table import markdown, summarise_arms, write_table
    except ImportError as error:
        raise InputError(f'Training needs {error.name}, which is not installed: pip install "vfl[train]"') from error
    runs = plan_runs(recipe, overrides or (), out, arms.split(","), seeds)
    run_all(runs, jobs=jobs, launcher=shlex.split(launcher or ""))
    table = summarise_arms(runs)
    write_table(table, out)
    console = Console()
    console.print(Markdown(markdown(table)))
    console.print(str(out / "arms.md"), markup=False, highlight=False, soft_wrap=True)
