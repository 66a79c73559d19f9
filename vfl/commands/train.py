"""`vfl train RECIPE [key=value ...]`: LoRA in the layers of chosen functions, measured before and after.

vfl train recipes/micro/sft.yaml --check
vfl train recipes/micro/sft.yaml layers.arm=random --overwrite
"""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vfl.commands.options import Overrides, Overwrite, Resume, Shared, config_options, split_shared, takes
from vfl.errors import InputError


@takes(config_options, required=["recipe"])
def command(
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="YAML file with the recipe; see recipes/.")
    ] = None,
    overrides: Overrides = None,
    resume: Resume = False,
    check: Annotated[
        bool, typer.Option("--check", help="Stop after the preflight, before anything is trained.")
    ] = False,
    overwrite: Overwrite = False,
    *,
    shared: Shared,
) -> None:
    """Fine-tune with LoRA in chosen layers.

    Accuracy is measured before and after. For several GPUs, run torchrun --module vfl.train.launch RECIPE.
    """
    from vfl.io.config import recipe_and_overrides

    config, sets, _ = split_shared(shared)
    file, settings = recipe_and_overrides(recipe, overrides or (), config, sets)
    try:
        from vfl.train.run import train
    except ImportError as error:
        raise InputError(f'Training needs {error.name}, which is not installed: pip install "vfl[train]"') from error
    console = Console()
    try:
        outcome = train(file, settings, resume=resume, check=check, overwrite=overwrite)
    except KeyboardInterrupt:
        Console(stderr=True).print("Interrupted. `--resume` continues from the last complete checkpoint.")
        raise typer.Exit(130) from None
    if outcome.adapter is None:
        where = outcome.preflight or f"nothing was written, {outcome.folder} holds a run already"
        console.print(f"Checked: {where}", markup=False, highlight=False, soft_wrap=True)
        return
    if outcome.changes:
        from vfl.train.report.before_after import gained, points

        table = Table(title="Accuracy before and after, 95 % intervals", title_justify="left")
        for heading in ("", "n", "before", "after", "change (points)"):
            table.add_column(heading, justify="right" if heading == "n" else "left")
        for change in outcome.changes:
            table.add_row(
                Text(change.group), str(change.n), points(change.before), points(change.after), gained(change)
            )
        console.print(table)
    for path in (outcome.adapter, outcome.folder / "report.html"):
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)
