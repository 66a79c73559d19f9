"""`vfl push FOLDER ORG/NAME`: what a command wrote, into a repository of the Hugging Face hub.

vfl push runs/counting me/qwen2.5-vl-3b-counting
vfl push runs/map me/map-of-qwen2.5-vl-3b --private
vfl push runs/subset me/subset
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a run, adapter, model, map or subset.")],
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The repository, made where there is none.")],
    private: Annotated[bool, typer.Option("--private", help="Make a private one; one that is there must be.")] = False,
    report: Annotated[
        bool, typer.Option("--report", help="With report and evaluation, which name the run's settings and paths.")
    ] = False,
    message: Annotated[str | None, typer.Option("--message", help="Of the commit.", show_default=False)] = None,
) -> None:
    """Push results to the Hugging Face hub.

    Adapters, models, maps and subsets go up in one commit, with a card. Checkpoints, settings and logs do not.
    Commands read them back by their address, hf://ORG/NAME or hf://datasets/ORG/NAME.
    """
    from vfl.hub.push import push
    from vfl.io.sizes import size_text

    pushed = push(folder, repo, private=private, report=report, message=message)
    console = Console()
    console.print(
        f"{pushed.what.capitalize()} pushed: {pushed.files} files, {size_text(pushed.bytes)}. {pushed.page}\n"
        f"Commands find it as {pushed.address}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
