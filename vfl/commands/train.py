"""`vfl train RECIPE [key=value ...]`: LoRA in the layers of chosen functions, measured before and after.

vfl train recipes/micro/sft.yaml layers.arm=random --overwrite
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vfl.errors import InputError


def command(
    recipe: Annotated[Path, typer.Argument(help="YAML file; see recipes/.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as layers.arm=full.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last complete checkpoint.")] = False,
    check: Annotated[bool, typer.Option(help="Stop after the preflight; nothing is trained.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace another run's results.")] = False,
) -> None:
    """Fine-tune with LoRA in the layers of chosen functions. Many GPUs: torchrun --module vfl.train.launch RECIPE."""
    try:
        from vfl.train.run import train
    except ImportError as error:
        raise InputError(f'Training needs {error.name}, which is not installed: pip install "vfl[train]"') from error
    console = Console()
    try:
        outcome = train(recipe, overrides or (), resume=resume, check=check, overwrite=overwrite)
    except KeyboardInterrupt:
        Console(stderr=True).print("Interrupted. `--resume` goes on from the last complete checkpoint.")
        raise typer.Exit(130) from None
    if outcome.adapter is None:
        console.print(f"Checked: {outcome.folder / 'preflight.json'}", markup=False, highlight=False, soft_wrap=True)
        return
    if outcome.changes:
        from vfl.train.report.before_after import gained, points

        table = Table(title="Accuracy before and after, 95 % intervals", title_justify="left")
        for heading in ("", "n", "before", "after", "change (points)"):
            table.add_column(heading, justify="right" if heading == "n" else "left")
        for one in outcome.changes:
            table.add_row(Text(one.group), str(one.n), points(one.before), points(one.after), gained(one))
        console.print(table)
    for path in (outcome.adapter, outcome.folder / "report.html"):
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)
